-- From outbox.scheduled to outbox.dead_letter. $1 entries, $2 attempts, $3 reasons, $4 errors, of one length; $5 backend.
WITH dead AS (
  SELECT * FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[]) AS f(entry, attempts, reason, error)
), moved AS (
  DELETE FROM outbox.scheduled m USING dead f WHERE m.entry = f.entry RETURNING m.*
)
INSERT INTO outbox.dead_letter (seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
  payload, payload_bytes, created_at, expires_at, bytes, backend, attempts, reason, last_error)
SELECT m.seq, m.id, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to, m.content_type, m.headers,
  m.payload, m.payload_bytes, m.created_at, m.expires_at, m.bytes, $5::text, f.attempts, f.reason, f.error
FROM moved m JOIN dead f USING (entry)
