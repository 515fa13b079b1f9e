-- What `migrate --order none` runs: no lanes, and no indexes that nothing reads.
LOCK TABLE outbox.setting IN ACCESS EXCLUSIVE MODE;
DROP INDEX IF EXISTS outbox.message_order_idx, outbox.message_unkeyed_idx, outbox.scheduled_order_idx;
UPDATE outbox.setting SET value = 'none' WHERE name = 'order';
UPDATE outbox.setting SET value = '0' WHERE name = 'lanes';
