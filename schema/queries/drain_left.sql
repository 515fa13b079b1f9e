-- What drain still has to do, read without locks, mark, holds or pauses: rows with seq <= $1 in the channels of $2, $3
-- (LIKE patterns or NULL), those of them in the resting channels $4, retries that were due at $5, and retries that wait.
SELECT (SELECT count(*) FROM outbox.message WHERE seq <= $1::bigint
          AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))),
       (SELECT count(*) FROM outbox.message WHERE seq <= $1::bigint AND channel = ANY ($4::text[])
          AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))),
       (SELECT count(*) FROM outbox.scheduled WHERE seq IS NOT NULL AND due_at <= $5::timestamptz AND channel <> ALL ($4::text[])
          AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[]))),
       (SELECT count(*) FROM outbox.scheduled WHERE seq IS NOT NULL AND due_at > $5::timestamptz
          AND ($2::text[] IS NULL OR channel LIKE ANY ($2::text[])) AND ($3::text[] IS NULL OR NOT channel LIKE ANY ($3::text[])))
