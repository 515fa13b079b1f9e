-- What `migrate --order key --lanes N` runs; :mask is N - 1. The keys of a channel are spread over N lanes; a relay holds the lane
-- of every key that it publishes. In psql: -v mask=63 -1 -f order_key.sql.

-- Waits for every relay in the middle of a transaction, and lets none begin one before COMMIT: all of them read this table first.
LOCK TABLE outbox.setting IN ACCESS EXCLUSIVE MODE;
DROP INDEX IF EXISTS outbox.message_order_idx, outbox.message_unkeyed_idx, outbox.scheduled_order_idx;

-- Finds the head of each key by a loose scan. The unit of order is (channel, key), told by two hashes.
CREATE INDEX message_order_idx ON outbox.message (
  ((hashtextextended(channel, 0) # hashtextextended(key, 0)) & :mask), hashtextextended(channel, 0), hashtextextended(key, 0), seq)
  WHERE key IS NOT NULL;
CREATE INDEX message_unkeyed_idx ON outbox.message (seq) WHERE key IS NULL;
CREATE INDEX scheduled_order_idx ON outbox.scheduled (hashtextextended(channel, 0), hashtextextended(key, 0), seq)
  WHERE key IS NOT NULL AND seq IS NOT NULL;

UPDATE outbox.setting SET value = 'key' WHERE name = 'order';
UPDATE outbox.setting SET value = (:mask + 1)::text WHERE name = 'lanes';
