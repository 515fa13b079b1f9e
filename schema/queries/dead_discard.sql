-- Deletes dead letters for good, oldest first. Up to entry $6; the other parameters as in dead_list.sql.
WITH chosen AS MATERIALIZED (
  SELECT entry FROM outbox.dead_letter
  WHERE ($1::uuid[] IS NULL OR id = ANY ($1::uuid[])) AND ($2::text IS NULL OR reason = $2::text)
    AND ($3::text IS NULL OR channel LIKE $3::text)
    AND ($4::bigint IS NULL OR died_at >= clock_timestamp() - $4::bigint * interval '1 millisecond')
    AND entry <= $6::bigint
  ORDER BY entry LIMIT $5::bigint
)
DELETE FROM outbox.dead_letter d USING chosen c WHERE d.entry = c.entry
