-- What drain still has to do, read without locks, mark, holds or pauses: rows with seq <= $1 in the channels of $2, $3
-- (LIKE patterns or NULL); rows and due retries that wait in the resting channels $4, in paused ones, or behind an earlier row of
-- their key that waits ($6: order is by key); retries that were due at $5 (microseconds since 1970); retries that wait; in how many ms the first
-- of those with seq <= $1, and the first of the pauses that concern a row, is over (NULL = none); delayed messages that were due then and have no
-- seq yet; how many retries with seq <= $1 wait.
WITH started AS MATERIALIZED (
  SELECT timestamptz 'epoch' + $5::bigint * interval '1 microsecond' AS at
), barred AS MATERIALIZED (
  SELECT unnest($4::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), mine AS (
  SELECT seq, channel, key, due_at, true AS retry, due_at <= (SELECT at FROM started) AS due FROM outbox.scheduled
  WHERE ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
    AND (seq IS NOT NULL OR due_at <= (SELECT at FROM started))
  UNION ALL
  SELECT seq, channel, key, NULL, false, true FROM outbox.message
  WHERE seq <= $1::bigint
    AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
)
SELECT count(*) FILTER (WHERE NOT retry),
       count(*) FILTER (WHERE due AND seq IS NOT NULL AND (channel IN (SELECT channel FROM barred) OR channel LIKE ANY ((SELECT paused FROM patterns)::text[])
         OR ($6::boolean AND key IS NOT NULL
             AND EXISTS (SELECT FROM outbox.scheduled WHERE key IS NOT NULL AND seq IS NOT NULL AND due_at > (SELECT at FROM started)) AND EXISTS (
               SELECT FROM outbox.scheduled s
               WHERE s.key IS NOT NULL AND s.seq IS NOT NULL AND hashtextextended(s.channel, 0) = hashtextextended(m.channel, 0)
                 AND hashtextextended(s.key, 0) = hashtextextended(m.key, 0) AND s.seq < m.seq AND s.due_at > (SELECT at FROM started))))),
       count(*) FILTER (WHERE retry AND due), count(*) FILTER (WHERE retry AND NOT due),
       (extract(epoch FROM min(due_at) FILTER (WHERE retry AND NOT due AND seq <= $1::bigint AND isfinite(due_at)) - clock_timestamp()) * 1000)::bigint,
       (SELECT (extract(epoch FROM min(p.until) FILTER (WHERE isfinite(p.until)) - clock_timestamp()) * 1000)::bigint FROM outbox.paused p JOIN outbox.paused_now n USING (scope)
        WHERE p.until IS NOT NULL AND (scope = '*' OR EXISTS (SELECT FROM mine WHERE mine.channel = scope OR mine.channel LIKE n.pattern))),
       count(*) FILTER (WHERE seq IS NULL), count(*) FILTER (WHERE retry AND NOT due AND seq <= $1::bigint)
FROM mine m
