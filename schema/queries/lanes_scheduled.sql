-- Order by key: which retries may be claimed, and the lanes of those that have a key; like lanes.sql. A keyed retry counts if it is its key's
-- head over message and scheduled. $1 lanes - 1, $2 first lane, $3 sharers, $4 rows at most, $5 resting channels, $6 included, $7 excluded.
-- Sets outbox.entries and outbox.lanes; the claim looks at them again in its own snapshot. Looks at 20,000 due rows at most.
WITH barred AS MATERIALIZED (
  SELECT $5::text[] || ARRAY(SELECT scope FROM outbox.paused_now) AS channels
), due AS MATERIALIZED (
  SELECT entry, seq, channel, key FROM outbox.scheduled
  WHERE due_at <= clock_timestamp() AND seq IS NOT NULL
    AND channel <> ALL ((SELECT channels FROM barred)::text[]) AND '*' <> ALL ((SELECT channels FROM barred)::text[])
    AND ($6::text[] IS NULL OR channel LIKE ANY ($6::text[])) AND ($7::text[] IS NULL OR NOT channel LIKE ANY ($7::text[]))
  ORDER BY due_at, entry LIMIT 20000
), heads AS MATERIALIZED (
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
), wanted AS MATERIALIZED (
  SELECT DISTINCT lane < $2::bigint AS wrapped, lane FROM heads WHERE lane IS NOT NULL ORDER BY 1, 2
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
  LIMIT (SELECT (count(*) + $3::bigint - 1) / $3::bigint FROM wanted)
)
SELECT set_config('outbox.lanes', ARRAY(SELECT lane FROM obtained)::text, true),
       set_config('outbox.entries', ARRAY(SELECT entry FROM heads)::text, true)
