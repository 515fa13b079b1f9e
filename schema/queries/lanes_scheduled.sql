-- Order by key: which retries may be claimed, and the lanes of those that have a key; like lanes.sql. A keyed retry counts if it is its key's
-- head over message and scheduled. $1 lanes - 1, $2 first lane, $3 sharers, $4 rows at most, $5 resting channels, $6 included, $7 excluded,
-- $8, $9 hashes of the channel and the key behind which the walk begins, $10 names of channels: these alone (NULL = all).
-- Sets outbox.entries and outbox.lanes; the claim looks at them again in its own snapshot.
--
-- first: what has been due for longest, 2,000 rows. Where that is not all, and not enough, they may stand behind heads that wait: then the walk looks
-- for others, a loose index scan with one step per key, 4,000 in all, from another key each time; a barred channel costs one step. free: those
-- without a key.
WITH RECURSIVE barred AS MATERIALIZED (
  SELECT unnest($5::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), due AS MATERIALIZED (
  SELECT entry, seq, channel, key FROM outbox.scheduled
  WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NOT NULL
    AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
    AND ($6::text[] IS NULL OR channel LIKE ANY ($6::text[])) AND ($7::text[] IS NULL OR NOT channel LIKE ANY ($7::text[]))
    AND ($10::text[] IS NULL OR channel IN (SELECT unnest($10::text[])))
  ORDER BY due_at, entry LIMIT 2000
), first AS MATERIALIZED (
  SELECT entry, (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $1::bigint AS lane FROM due m
  WHERE key IS NULL OR (
    NOT EXISTS (SELECT FROM outbox.scheduled e WHERE e.key IS NOT NULL AND e.seq IS NOT NULL
      AND (e.seq < m.seq OR (e.seq = m.seq AND e.entry < m.entry))
      AND hashtextextended(e.channel, 0) = hashtextextended(m.channel, 0) AND hashtextextended(e.key, 0) = hashtextextended(m.key, 0))
    AND NOT EXISTS (SELECT FROM outbox.message e WHERE e.key IS NOT NULL AND e.seq + 0 < m.seq
      AND (hashtextextended(e.channel, 0) # hashtextextended(e.key, 0)) & $1::bigint
        = (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $1::bigint
      AND hashtextextended(e.channel, 0) = hashtextextended(m.channel, 0) AND hashtextextended(e.key, 0) = hashtextextended(m.key, 0)))
  LIMIT $4::int
), walk (channel_hash, key_hash, last_channel_hash, last_key_hash, wrapped, step, passed, entry, seq) AS (
  SELECT $8::bigint, $9::bigint, 9223372036854775807, 9223372036854775807, false, 0, false, NULL::bigint, NULL::bigint
  WHERE (SELECT count(*) FROM due) = 2000 AND (SELECT count(*) FROM first) < $4::int
  UNION ALL
  SELECT n.channel_hash, n.key_hash, n.last_channel_hash, n.last_key_hash, n.wrapped, w.step + 1, n.passed, n.entry, n.seq
  FROM walk w CROSS JOIN LATERAL (
    (SELECT hashtextextended(m.channel, 0) AS channel_hash, hashtextextended(m.key, 0) AS key_hash, w.last_channel_hash, w.last_key_hash, w.wrapped,
       m.channel IN (SELECT channel FROM barred) OR m.channel LIKE ANY ((SELECT paused FROM patterns)::text[])
         OR NOT ($6::text[] IS NULL OR m.channel LIKE ANY ($6::text[])) OR ($7::text[] IS NOT NULL AND m.channel LIKE ANY ($7::text[]))
         OR ($10::text[] IS NOT NULL AND m.channel NOT IN (SELECT unnest($10::text[]))) AS passed,
       CASE WHEN m.due_at <= clock_timestamp() THEN m.entry END AS entry, m.seq
     FROM outbox.scheduled m
     WHERE m.key IS NOT NULL AND m.seq IS NOT NULL
       AND (hashtextextended(m.channel, 0), hashtextextended(m.key, 0))
         > (w.channel_hash, CASE WHEN w.passed THEN 9223372036854775807 ELSE w.key_hash END)
       AND (hashtextextended(m.channel, 0), hashtextextended(m.key, 0)) <= (w.last_channel_hash, w.last_key_hash)
     ORDER BY hashtextextended(m.channel, 0), hashtextextended(m.key, 0), m.seq LIMIT 1)
    UNION ALL
    SELECT -9223372036854775808, -9223372036854775808, $8::bigint, $9::bigint, true, false, NULL, NULL WHERE NOT w.wrapped
    LIMIT 1) n
  WHERE w.step < 4000
), others AS MATERIALIZED (
  SELECT w.entry, (w.channel_hash # w.key_hash) & $1::bigint AS lane FROM walk w
  WHERE w.entry IS NOT NULL AND NOT w.passed AND NOT EXISTS (
    SELECT FROM outbox.message e WHERE e.key IS NOT NULL AND e.seq + 0 < w.seq
      AND (hashtextextended(e.channel, 0) # hashtextextended(e.key, 0)) & $1::bigint = (w.channel_hash # w.key_hash) & $1::bigint
      AND hashtextextended(e.channel, 0) = w.channel_hash AND hashtextextended(e.key, 0) = w.key_hash)
  LIMIT $4::int
), free AS MATERIALIZED (
  SELECT entry FROM outbox.scheduled
  WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NOT NULL AND key IS NULL
    AND (SELECT count(*) FROM due) = 2000 AND (SELECT count(*) FROM first) < $4::int
    AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND ($6::text[] IS NULL OR channel LIKE ANY ($6::text[])) AND ($7::text[] IS NULL OR NOT channel LIKE ANY ($7::text[]))
    AND ($10::text[] IS NULL OR channel IN (SELECT unnest($10::text[])))
  ORDER BY due_at, entry LIMIT $4::int
), heads AS MATERIALIZED (
  SELECT entry, lane FROM (SELECT entry, lane, 1 AS rank FROM first
    UNION ALL SELECT entry, lane, 2 FROM others WHERE entry NOT IN (SELECT entry FROM first)
    UNION ALL SELECT entry, NULL, 3 FROM free WHERE entry NOT IN (SELECT entry FROM first)) ranked
  ORDER BY rank LIMIT $4::int
), wanted AS MATERIALIZED (
  SELECT DISTINCT lane < $2::bigint AS wrapped, lane FROM heads WHERE lane IS NOT NULL ORDER BY 1, 2
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
  LIMIT (SELECT (count(*) + $3::bigint - 1) / $3::bigint FROM wanted)
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true),
       set_config('outbox.entries', ARRAY(SELECT entry FROM heads)::text, true)
