-- One message wherever it stands, in the columns of the claims. $1 its id; $2 as claim.sql's $9; the first in outbox.message, outbox.scheduled, outbox.dead_letter.
WITH found AS (
  SELECT 1 AS place, seq, NULL::bigint AS entry, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
    payload, payload_bytes, created_at, expires_at, bytes, 0 AS attempts, NULL::timestamptz AS tried_at, NULL::timestamptz AS due_at, false AS solo
  FROM outbox.message WHERE id = $1::uuid
  UNION ALL
  SELECT 2, seq, entry, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
    payload, payload_bytes, created_at, expires_at, bytes, attempts, tried_at, due_at, solo
  FROM outbox.scheduled WHERE id = $1::uuid
  UNION ALL
  SELECT 3, seq, entry, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
    payload, payload_bytes, created_at, NULL, bytes, attempts, NULL, NULL, false
  FROM outbox.dead_letter WHERE id = $1::uuid
)
SELECT coalesce(m.seq, 0), m.entry, m.id::text, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to,
  coalesce(m.content_type, CASE WHEN m.payload_bytes IS NULL THEN 'application/json' ELSE 'application/octet-stream' END),
  CASE WHEN m.bytes <= $2::bigint THEN m.headers::text END, CASE WHEN m.bytes <= $2::bigint THEN m.payload END,
  CASE WHEN m.bytes <= $2::bigint THEN m.payload_bytes END,
  CASE WHEN isfinite(m.created_at) THEN extract(epoch FROM least(greatest(m.created_at, '0001-01-01 00:00+00'), '9999-12-31 23:59:59+00')) * 1000000 ELSE 0 END::bigint AS created_at_us,
  CASE WHEN isfinite(m.expires_at) THEN greatest(0, floor(extract(epoch FROM least(m.expires_at, '9999-12-31 23:59:59+00') - clock_timestamp()) * 1000)) WHEN m.expires_at = '-infinity' THEN 0 END::bigint AS ttl_ms,
  m.attempts, CASE WHEN isfinite(m.tried_at) THEN floor(extract(epoch FROM clock_timestamp() - m.tried_at) * 1000) END::bigint AS tried_age_ms,
  CASE WHEN isfinite(m.tried_at) AND isfinite(m.due_at) THEN floor(extract(epoch FROM m.due_at - m.tried_at) * 1000) END::bigint AS waited_ms, m.solo,
  CASE WHEN isfinite(m.created_at) THEN greatest(0, floor(extract(epoch FROM clock_timestamp() - m.created_at) * 1000)) ELSE 0 END::bigint AS age_ms,
  CASE WHEN m.bytes > $2::bigint THEN m.bytes END AS too_large
FROM found m ORDER BY place LIMIT 1
