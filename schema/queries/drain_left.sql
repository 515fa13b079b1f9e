-- What drain still has to do, read without locks, mark, holds or pauses: rows with seq <= $1 in the channels of $2, $3
-- (LIKE patterns or NULL); rows and due retries in the resting channels $4; retries that were due at $5; and retries that wait.
WITH mine AS (
  SELECT channel, true AS retry, due_at <= $5::timestamptz AS due FROM outbox.scheduled
  WHERE seq IS NOT NULL
    AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
  UNION ALL
  SELECT channel, false, true FROM outbox.message
  WHERE seq <= $1::bigint
    AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))
)
SELECT count(*) FILTER (WHERE NOT retry), count(*) FILTER (WHERE due AND channel = ANY ($4::text[])),
       count(*) FILTER (WHERE retry AND due), count(*) FILTER (WHERE retry AND NOT due)
FROM mine
