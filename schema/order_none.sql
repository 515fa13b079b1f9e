-- What `migrate --order none` runs: no lanes, and no indexes that nothing reads.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;
-- All or nothing, and shorter than deadlock_timeout: whoever is in the middle of a transaction must neither wait long for us nor die for
-- us. Relays read outbox.setting first thing in every transaction: none is under way once we have it, and none begins before COMMIT.
SET LOCAL lock_timeout = '500ms';
LOCK TABLE outbox.setting, outbox.message, outbox.scheduled IN ACCESS EXCLUSIVE MODE;
SET LOCAL lock_timeout = 0;
DROP INDEX IF EXISTS outbox.message_order_idx, outbox.message_unkeyed_idx, outbox.scheduled_order_idx;
UPDATE outbox.setting SET value = 'none' WHERE name = 'order';
UPDATE outbox.setting SET value = '0' WHERE name = 'lanes';
