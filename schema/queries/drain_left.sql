-- What drain still has to do, read without locks, mark, holds or pauses: rows with seq <= $1 in the channels of $2, $3
-- (LIKE patterns or NULL); rows and due retries that wait in the resting channels $4, in paused ones, or behind an earlier row of
-- their key that waits ($6: order is by key); retries that were due at $5; and retries that wait.
WITH barred AS MATERIALIZED (
  SELECT $4::text[] || ARRAY(SELECT scope FROM outbox.paused_now) AS channels
), mine AS (
  SELECT seq, channel, key, true AS retry, due_at <= $5::timestamptz AS due FROM outbox.scheduled
  WHERE seq IS NOT NULL
    AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
  UNION ALL
  SELECT seq, channel, key, false, true FROM outbox.message
  WHERE seq <= $1::bigint
    AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
)
SELECT count(*) FILTER (WHERE NOT retry),
       count(*) FILTER (WHERE due AND (channel = ANY ((SELECT channels FROM barred)::text[]) OR '*' = ANY ((SELECT channels FROM barred)::text[])
         OR ($6::boolean AND key IS NOT NULL
             AND EXISTS (SELECT FROM outbox.scheduled WHERE key IS NOT NULL AND seq IS NOT NULL AND due_at > $5::timestamptz) AND EXISTS (
               SELECT FROM outbox.scheduled s
               WHERE s.key IS NOT NULL AND s.seq IS NOT NULL AND hashtextextended(s.channel, 0) = hashtextextended(m.channel, 0)
                 AND hashtextextended(s.key, 0) = hashtextextended(m.key, 0) AND s.seq < m.seq AND s.due_at > $5::timestamptz)))),
       count(*) FILTER (WHERE retry AND due), count(*) FILTER (WHERE retry AND NOT due)
FROM mine m
