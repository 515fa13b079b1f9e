-- The transactions that read the pauses before they claimed, and are not over: every relay's lock on
-- outbox.paused_now tells, which hardly anybody else reads. $1: only those
-- of an earlier answer (NULL = all).
SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}')::text, count(DISTINCT virtualtransaction)
FROM pg_catalog.pg_locks
WHERE locktype = 'relation' AND relation = 'outbox.paused_now'::regclass AND mode = 'AccessShareLock' AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND ($1::text[] IS NULL OR virtualtransaction = ANY ($1::text[]))
