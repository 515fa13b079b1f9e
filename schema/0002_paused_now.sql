-- 0002: the pauses in force, for the relay's queries.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;
CREATE VIEW outbox.paused_now AS
  SELECT scope FROM outbox.paused WHERE until IS NULL OR until > clock_timestamp();

INSERT INTO outbox.schema_version (version) VALUES (2);
