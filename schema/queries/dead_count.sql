-- How many dead letters of which channel and reason; parameters 1 to 4 as in dead_list.sql.
SELECT channel, reason, count(*), min(last_error)
FROM outbox.dead_letter
WHERE ($1::uuid[] IS NULL OR id = ANY ($1::uuid[])) AND ($2::text IS NULL OR reason = $2::text)
  AND ($3::text IS NULL OR channel LIKE $3::text)
  AND ($4::bigint IS NULL OR died_at >= clock_timestamp() - $4::bigint * interval '1 millisecond')
GROUP BY channel, reason ORDER BY count(*) DESC, channel, reason
