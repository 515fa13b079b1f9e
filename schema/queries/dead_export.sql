-- Whole dead letters as JSON, oldest first, behind entry $6; the other parameters as in dead_list.sql. Of these as many as have 8 MiB together, and
-- one always.
WITH chosen AS MATERIALIZED (
  SELECT entry FROM (
    SELECT entry, sum(bytes) OVER (ORDER BY entry) AS total, row_number() OVER (ORDER BY entry) AS place FROM (
      SELECT entry, bytes FROM outbox.dead_letter
      WHERE ($1::uuid[] IS NULL OR id = ANY ($1::uuid[])) AND ($2::text IS NULL OR reason = $2::text)
        AND ($3::text IS NULL OR channel LIKE $3::text)
        AND ($4::bigint IS NULL OR died_at >= clock_timestamp() - $4::bigint * interval '1 millisecond')
        AND entry > $6::bigint
      ORDER BY entry LIMIT $5::bigint) rows) sums
  WHERE place = 1 OR total <= 8388608
)
SELECT entry, (SELECT to_jsonb(f) FROM (SELECT d.entry, d.seq, d.id, d.kind, d.channel, d.type, d.key, d.correlation_id, d.causation_id,
    d.reply_to, d.content_type, d.headers, d.created_at, d.expires_at, d.bytes, d.backend, d.attempts, d.reason, d.last_error, d.died_at) f)::text,
  payload::text, encode(payload_bytes, 'base64')
FROM outbox.dead_letter d JOIN chosen USING (entry)
ORDER BY entry
