-- 0002: the pauses in force, for the relay's queries.
CREATE VIEW outbox.paused_now AS
  SELECT scope FROM outbox.paused WHERE until IS NULL OR until > clock_timestamp();

INSERT INTO outbox.schema_version (version) VALUES (2);
