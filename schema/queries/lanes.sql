-- Takes lanes in which keyed rows of our channels stand, in cyclic order from $2; in a statement of its own, so that the claim behind it has
-- a snapshot in which all that earlier holders did is done. Nobody takes more than one in $3 of the lanes that it could use, rounded up: other
-- workers and other processes want some, too.
-- $1 lanes - 1, $2 first lane, $3 sharers (negative: eight lanes at least), $4 low watermark, $5 resting channels, $6 included, $7 excluded patterns;
-- $8 names of channels: these alone (NULL = all).
-- Sets outbox.lanes to what was obtained: the claim reads nothing else.
--
-- walk: a step per lane, or per channel that is not ours, and where channels are named from one to the next; a lane with very many of those
-- is wanted unseen.
WITH RECURSIVE barred AS MATERIALIZED (
  SELECT unnest($5::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), named AS MATERIALIZED (
  SELECT channel, greatest(hashtextextended(channel, 0), -9223372036854775807) AS channel_hash FROM unnest($8::text[]) channel
), walk (lane, channel_hash, wrapped, step, wanted) AS (
  SELECT $2::bigint - 1, 9223372036854775807, false, 0, false WHERE NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
  UNION ALL
  SELECT n.lane, n.channel_hash, n.wrapped, CASE WHEN n.lane = w.lane THEN w.step + 1 ELSE 0 END, n.ours OR (n.lane = w.lane AND w.step >= 20)
  FROM walk w CROSS JOIN LATERAL (
    (SELECT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint AS lane, hashtextextended(channel, 0) AS channel_hash, w.wrapped,
       channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
         AND ($6::text[] IS NULL OR channel LIKE ANY ($6::text[]))
         AND ($7::text[] IS NULL OR NOT channel LIKE ANY ($7::text[]))
         AND ($8::text[] IS NULL OR channel IN (SELECT channel FROM named)) AS ours
     FROM outbox.message
     WHERE key IS NOT NULL AND seq + 0 >= $4::bigint
       AND ((hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint, hashtextextended(channel, 0))
         > (w.lane, CASE WHEN w.wanted THEN 9223372036854775807
                         WHEN $8::text[] IS NOT NULL
                         THEN coalesce((SELECT min(channel_hash) FROM named n WHERE n.channel_hash > w.channel_hash) - 1, 9223372036854775807)
                         ELSE w.channel_hash END)
       AND (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint < CASE WHEN w.wrapped THEN $2::bigint ELSE $1::bigint + 1 END
     ORDER BY (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint, hashtextextended(channel, 0),
              hashtextextended(key, 0), seq + 0
     LIMIT 1)
    UNION ALL
    SELECT -1, 9223372036854775807, true, false WHERE NOT w.wrapped
    LIMIT 1) n
), wanted AS MATERIALIZED (
  SELECT lane FROM walk WHERE wanted
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
  LIMIT (SELECT greatest((count(*) + abs($3::bigint) - 1) / abs($3::bigint), CASE WHEN $3::bigint < 0 THEN 8 END) FROM wanted)
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true)
