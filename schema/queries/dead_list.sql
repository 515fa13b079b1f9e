-- Dead letters, newest first. $1 ids (NULL = any), $2 reason, $3 channel pattern (LIKE), $4 died at most so many ms ago, $5 at most so many.
SELECT entry, seq, id::text, channel, type, key, reason, attempts, backend, to_char(died_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       last_error
FROM outbox.dead_letter
WHERE ($1::uuid[] IS NULL OR id = ANY ($1::uuid[])) AND ($2::text IS NULL OR reason = $2::text)
  AND ($3::text IS NULL OR channel LIKE $3::text)
  AND ($4::bigint IS NULL OR died_at >= clock_timestamp() - $4::bigint * interval '1 millisecond')
ORDER BY died_at DESC, entry DESC LIMIT $5::bigint
