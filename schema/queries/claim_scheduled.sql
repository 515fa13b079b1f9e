-- Retries that are due, published from outbox.scheduled with the seq they always had. A row on which a session died is
-- claimed alone. $1 rows at most, $2 bytes at most, $3 resting channels, $4 included, $5 excluded patterns; $6 as claim.sql's $9, $7 as its $10.
WITH barred AS MATERIALIZED (
  SELECT unnest($3::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), locked AS MATERIALIZED (
  SELECT entry, bytes, solo, due_at, ctid AS version FROM outbox.scheduled m
  WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NOT NULL
    AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
    AND ($4::text[] IS NULL OR channel LIKE ANY ($4::text[])) AND ($5::text[] IS NULL OR NOT channel LIKE ANY ($5::text[]))
    AND ($7::text[] IS NULL OR channel IN (SELECT unnest($7::text[])))
  ORDER BY due_at, entry LIMIT $1::int
  FOR UPDATE SKIP LOCKED
), prefix AS MATERIALIZED (
  SELECT entry, version FROM (SELECT entry, version, row_number() OVER w AS place, sum(bytes) OVER w AS total, count(*) FILTER (WHERE solo) OVER w AS solos
                     FROM locked WINDOW w AS (ORDER BY due_at, entry)) s
  WHERE place = 1 OR (total <= $2::bigint AND solos = 0)
)
SELECT m.seq, m.entry, m.id::text, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to,
  coalesce(m.content_type, CASE WHEN m.payload_bytes IS NULL THEN 'application/json' ELSE 'application/octet-stream' END),
  CASE WHEN m.bytes <= $6::bigint THEN m.headers::text END, CASE WHEN m.bytes <= $6::bigint THEN m.payload END,
  CASE WHEN m.bytes <= $6::bigint THEN m.payload_bytes END,
  CASE WHEN isfinite(m.created_at) THEN extract(epoch FROM least(greatest(m.created_at, '0001-01-01 00:00+00'), '9999-12-31 23:59:59+00')) * 1000000 ELSE 0 END::bigint AS created_at_us,
  CASE WHEN isfinite(m.expires_at) THEN greatest(0, floor(extract(epoch FROM least(m.expires_at, '9999-12-31 23:59:59+00') - clock_timestamp()) * 1000)) WHEN m.expires_at = '-infinity' THEN 0 END::bigint AS ttl_ms,
  m.attempts, CASE WHEN isfinite(m.tried_at) THEN floor(extract(epoch FROM clock_timestamp() - m.tried_at) * 1000) END::bigint AS tried_age_ms,
  CASE WHEN isfinite(m.tried_at) AND isfinite(m.due_at) THEN floor(extract(epoch FROM m.due_at - m.tried_at) * 1000) END::bigint AS waited_ms, m.solo,
  CASE WHEN isfinite(m.created_at) THEN greatest(0, floor(extract(epoch FROM clock_timestamp() - m.created_at) * 1000)) ELSE 0 END::bigint AS age_ms,
  CASE WHEN m.bytes > $6::bigint THEN m.bytes END AS too_large
FROM prefix p JOIN outbox.scheduled m ON m.entry = p.entry AND m.ctid = p.version
ORDER BY m.seq
