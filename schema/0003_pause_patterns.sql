-- 0003: a pause may be a pattern with * and ?, as in `channels`: pattern is its LIKE pattern, NULL where scope is one channel.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;
CREATE OR REPLACE VIEW outbox.paused_now AS
  SELECT scope,
         CASE WHEN scope ~ '[*?]' THEN
           translate(replace(replace(replace(scope, '\', '\\'), '%', '\%'), '_', '\_'), '*?', '%_') END AS pattern
  FROM outbox.paused WHERE until IS NULL OR until > clock_timestamp();

INSERT INTO outbox.schema_version (version) VALUES (3);
