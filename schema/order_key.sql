-- What `migrate --order key --lanes N` runs; :mask is N - 1. The keys of a channel are spread over N lanes; a relay holds the lane
-- of every key that it publishes. In psql: -v mask=63 -1 -f order_key.sql.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;

-- All or nothing, and shorter than deadlock_timeout: whoever is in the middle of a transaction must neither wait long for us nor die for
-- us. Relays read outbox.setting first thing in every transaction: none is under way once we have it, and none begins before COMMIT.
SET LOCAL lock_timeout = '500ms';
LOCK TABLE outbox.setting, outbox.message, outbox.scheduled IN ACCESS EXCLUSIVE MODE;
SET LOCAL lock_timeout = 0;
DROP INDEX IF EXISTS outbox.message_order_idx, outbox.message_unkeyed_idx, outbox.scheduled_order_idx;

-- Finds the head of each key by a loose scan. The unit of order is (channel, key), told by two hashes. seq + 0: with statistics that
-- are older than the rows, the planner would take the primary key for a bound on seq, and read all rows in each step.
CREATE INDEX message_order_idx ON outbox.message (
  ((hashtextextended(channel, 0) # hashtextextended(key, 0)) & :mask), hashtextextended(channel, 0), hashtextextended(key, 0), (seq + 0))
  WHERE key IS NOT NULL;
CREATE INDEX message_unkeyed_idx ON outbox.message (seq) WHERE key IS NULL;
CREATE INDEX scheduled_order_idx ON outbox.scheduled (hashtextextended(channel, 0), hashtextextended(key, 0), seq)
  WHERE key IS NOT NULL AND seq IS NOT NULL;

UPDATE outbox.setting SET value = 'key' WHERE name = 'order';
UPDATE outbox.setting SET value = (:mask + 1)::text WHERE name = 'lanes';
