-- Delayed messages that are due enter outbox.message with a new seq. $1 rows at most of those that have been due for longest, and the first 16 of each of
-- 32 channels behind $4, by name, of 1,000 that are looked at: however many are due of one channel, each has its turn, in bytes too. $2 bytes at most
-- (one row always), $3 lanes - 1 where order is by key (NULL = no order). Who gives out a seq holds the lane of its key until COMMIT: nobody claims a later row of the key before this
-- one is there to be seen. A lane that somebody else holds leaves its rows for the next time; of the due ones, 5,000 are looked at for lanes to take, and no
-- more than 5,000 of a channel and 50,000 in all are passed for those that are free. Of each channel the first rows go first. Says how many, and the
-- channel behind which the next turn begins; what did not arrive did not leave, either: the cast fails then, and with it all of it.
WITH RECURSIVE looked (channel, is_due, place, step) AS (
  SELECT $4::text, false, 0, 0
  UNION ALL
  SELECT n.channel, coalesce(n.is_due, false), l.place + coalesce(n.is_due, false)::int, l.step + 1 FROM looked l LEFT JOIN LATERAL (
    SELECT channel, due_at <= clock_timestamp() AS is_due FROM outbox.scheduled WHERE seq IS NULL AND channel > l.channel
    ORDER BY channel, due_at, entry LIMIT 1) n ON true
  WHERE l.channel IS NOT NULL AND l.place < 32 AND l.step < 1000
), turn AS MATERIALIZED (
  SELECT channel, place FROM looked WHERE is_due
), wanted AS MATERIALIZED (
  SELECT DISTINCT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $3::bigint AS lane
  FROM ((SELECT channel, key FROM outbox.scheduled WHERE $3::bigint IS NOT NULL AND due_at <= (SELECT clock_timestamp()) AND seq IS NULL AND key IS NOT NULL
         ORDER BY due_at, entry LIMIT 5000)
        UNION ALL
        SELECT t.channel, due.key FROM turn t CROSS JOIN LATERAL (
          SELECT key FROM outbox.scheduled WHERE $3::bigint IS NOT NULL AND channel = t.channel AND due_at <= (SELECT clock_timestamp()) AND seq IS NULL
          ORDER BY due_at, entry LIMIT 16) due WHERE key IS NOT NULL) keyed
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
), last_of_all AS MATERIALIZED (
  SELECT due_at, entry FROM outbox.scheduled WHERE $3::bigint IS NOT NULL AND due_at <= (SELECT clock_timestamp()) AND seq IS NULL
  ORDER BY due_at, entry OFFSET 49999 LIMIT 1
), of_turn AS MATERIALIZED (
  SELECT t.place, due.* FROM turn t LEFT JOIN LATERAL (
    SELECT due_at, entry FROM outbox.scheduled WHERE $3::bigint IS NOT NULL AND channel = t.channel AND due_at <= (SELECT clock_timestamp()) AND seq IS NULL
    ORDER BY due_at, entry OFFSET 4999 LIMIT 1) last ON true
  CROSS JOIN LATERAL (
    SELECT entry, bytes, due_at, channel FROM outbox.scheduled WHERE channel = t.channel AND due_at <= (SELECT clock_timestamp()) AND seq IS NULL
      AND (due_at, entry) <= (coalesce(last.due_at, 'infinity'), coalesce(last.entry, 9223372036854775807))
      AND ($3::bigint IS NULL OR key IS NULL
           OR (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $3::bigint IN (SELECT lane FROM obtained))
    ORDER BY due_at, entry LIMIT 16 FOR UPDATE SKIP LOCKED) due
), oldest AS MATERIALIZED (
  SELECT entry, bytes, due_at FROM outbox.scheduled WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NULL
    AND (due_at, entry) <= (coalesce((SELECT due_at FROM last_of_all), 'infinity'), coalesce((SELECT entry FROM last_of_all), 9223372036854775807))
    AND ($3::bigint IS NULL OR key IS NULL
         OR (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $3::bigint IN (SELECT lane FROM obtained))
  ORDER BY due_at, entry LIMIT $1::int FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
  SELECT entry, bytes, due_at, row_number() OVER (PARTITION BY channel ORDER BY due_at, entry) AS round, place, channel FROM of_turn
  UNION ALL
  SELECT entry, bytes, due_at, 17, 0, NULL FROM oldest WHERE entry NOT IN (SELECT entry FROM of_turn)
), prefix AS MATERIALIZED (
  SELECT entry, channel FROM (
    SELECT entry, channel, row_number() OVER w AS place, sum(bytes) OVER w AS total FROM due WINDOW w AS (ORDER BY round, place, due_at, entry)) s
  WHERE place = 1 OR total <= $2::bigint
), moved AS (
  DELETE FROM outbox.scheduled s USING prefix WHERE s.entry = prefix.entry
  RETURNING s.*
), arrived AS (
  INSERT INTO outbox.message (id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
                              payload, payload_bytes, created_at, expires_at)
  SELECT id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
         payload, payload_bytes, created_at, expires_at
  FROM moved ORDER BY due_at, entry
  RETURNING 1
)
SELECT CASE WHEN (SELECT count(*) FROM arrived) = (SELECT count(*) FROM moved) THEN (SELECT count(*) FROM arrived)
            ELSE ('a trigger, a rule or a policy keeps rows out of outbox.message; of ' || (SELECT count(*) FROM moved) || ' not all arrived')::bigint END,
  -- the first of those for which bytes were short comes next
  coalesce(CASE WHEN EXISTS (SELECT FROM of_turn WHERE channel NOT IN (SELECT channel FROM prefix WHERE channel IS NOT NULL)) THEN (SELECT max(channel) FROM prefix)
                WHEN NOT EXISTS (SELECT FROM looked WHERE channel IS NULL) THEN (SELECT max(channel) FROM looked) END, '')
