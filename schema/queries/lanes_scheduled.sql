-- Takes the lanes of keyed retries that are due, like lanes.sql. $1 lanes - 1, $2 lanes at most.
WITH wanted AS MATERIALIZED (
  SELECT DISTINCT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint AS lane
  FROM (SELECT channel, key FROM outbox.scheduled
        WHERE due_at <= clock_timestamp() AND seq IS NOT NULL AND key IS NOT NULL ORDER BY due_at LIMIT 2000) due
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int) LIMIT $2::int
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true)
