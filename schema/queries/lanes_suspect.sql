-- Takes the lane of one row, like lanes.sql. $1 lanes - 1, $2 its seq.
WITH wanted AS MATERIALIZED (
  SELECT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint AS lane
  FROM outbox.message WHERE seq = $2::bigint AND key IS NOT NULL
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true)
