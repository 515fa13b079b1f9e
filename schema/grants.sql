-- What each role may do; idempotent. Run by the owner of schema outbox.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;
GRANT USAGE ON SCHEMA outbox TO outbox_producer, outbox_relay, outbox_consumer;

-- Producers call functions and can read nothing. The wrappers run as the caller and need _put, too.
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox TO outbox_producer;
REVOKE EXECUTE ON FUNCTION outbox.accept(text, uuid) FROM outbox_producer;

GRANT EXECUTE ON FUNCTION outbox.accept(text, uuid) TO outbox_consumer;

-- FOR UPDATE needs UPDATE on one column; bytes is a generated one, so this right can change nothing.
GRANT SELECT, INSERT, DELETE, UPDATE (bytes) ON outbox.message TO outbox_relay;
GRANT USAGE, SELECT ON SEQUENCE outbox.message_seq TO outbox_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.scheduled, outbox.paused, outbox.relay TO outbox_relay;
GRANT SELECT, INSERT, DELETE ON outbox.dead_letter TO outbox_relay;
GRANT SELECT ON outbox.setting, outbox.schema_version, outbox.backlog, outbox.paused_now TO outbox_relay;
