-- Takes lanes in which keyed rows stand, in cyclic order from $3; in a statement of its own, so that the claim behind it has a snapshot
-- in which all that earlier holders did is done. $1 lanes - 1, $2 lanes at most, $3 first lane, $4 low watermark.
-- Sets outbox.lanes to what was obtained: the claim reads nothing else.
WITH RECURSIVE walk (lane, wrapped) AS (
  VALUES ($3::bigint - 1, false)
  UNION ALL
  SELECT n.lane, n.wrapped
  FROM walk w CROSS JOIN LATERAL (
    (SELECT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint AS lane, w.wrapped
     FROM outbox.message
     WHERE key IS NOT NULL AND seq >= $4::bigint
       AND (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint > w.lane
       AND (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint < CASE WHEN w.wrapped THEN $3::bigint ELSE $1::bigint + 1 END
     ORDER BY (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint, hashtextextended(channel, 0),
              hashtextextended(key, 0), seq
     LIMIT 1)
    UNION ALL
    SELECT -1, true WHERE NOT w.wrapped
    LIMIT 1) n
), wanted AS MATERIALIZED (
  SELECT lane FROM walk WHERE lane >= 0 AND (wrapped OR lane >= $3::bigint)
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int) LIMIT $2::int
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true)
