-- Order by key: of the retries that outbox.entries names, those without a key, and those whose lane is held and that are still the head of
-- their key; with them the due retries that follow in their key. $1 rows at most, $2 bytes at most, $3 lanes - 1; $4 as claim.sql's $9.
--
-- run: heads first, then followers, each key up to the first that is not due, was sent alone before, or stands behind a message; locked,
-- prefix: a row that a stranger has locked cuts its key there, and a row on which a session died is claimed alone.
WITH heads AS MATERIALIZED (
  SELECT m.entry, m.seq, m.key IS NOT NULL AS keyed, hashtextextended(m.channel, 0) AS channel_hash, hashtextextended(m.key, 0) AS key_hash,
    coalesce((SELECT e.seq FROM outbox.message e
     WHERE e.key IS NOT NULL AND (hashtextextended(e.channel, 0) # hashtextextended(e.key, 0)) & $3::bigint
         = (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $3::bigint
       AND hashtextextended(e.channel, 0) = hashtextextended(m.channel, 0) AND hashtextextended(e.key, 0) = hashtextextended(m.key, 0)
     ORDER BY (hashtextextended(e.channel, 0) # hashtextextended(e.key, 0)) & $3::bigint, hashtextextended(e.channel, 0),
              hashtextextended(e.key, 0), e.seq + 0 LIMIT 1), 9223372036854775807) AS message_seq
  FROM unnest(nullif(current_setting('outbox.entries', true), '')::bigint[]) WITH ORDINALITY c (entry, place) JOIN outbox.scheduled m ON m.entry = c.entry
  WHERE m.key IS NULL
     OR (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $3::bigint = ANY (nullif(current_setting('outbox.lanes', true), '')::bigint[])
  ORDER BY c.place
), run AS MATERIALIZED (
  SELECT h.entry AS head, r.* FROM heads h CROSS JOIN LATERAL (
    SELECT k.entry, k.bytes, k.solo, k.due_at, k.version, row_number() OVER w AS place,
      bool_and(k.due_at <= (SELECT clock_timestamp()) AND k.seq < h.message_seq) OVER w AS may_go
    FROM (SELECT s.entry, s.seq, s.bytes, s.solo, s.due_at, s.ctid AS version FROM outbox.scheduled s
          WHERE s.key IS NOT NULL AND s.seq IS NOT NULL AND h.keyed
            AND hashtextextended(s.channel, 0) = h.channel_hash AND hashtextextended(s.key, 0) = h.key_hash
          ORDER BY hashtextextended(s.channel, 0), hashtextextended(s.key, 0), s.seq LIMIT 50) k
    WINDOW w AS (ORDER BY k.seq, k.entry)
    UNION ALL
    SELECT s.entry, s.bytes, s.solo, s.due_at, s.ctid, 1, true FROM outbox.scheduled s WHERE NOT h.keyed AND s.entry = h.entry) r
  WHERE r.may_go
  ORDER BY r.place, r.due_at, r.entry LIMIT $1::int
), locked AS MATERIALIZED (
  SELECT r.* FROM run r JOIN outbox.scheduled m ON m.entry = r.entry AND m.ctid = r.version
  FOR UPDATE OF m SKIP LOCKED
), prefix AS MATERIALIZED (
  SELECT entry FROM (
    SELECT entry, place, row_number() OVER (PARTITION BY head ORDER BY place) AS got, row_number() OVER w AS taken, sum(bytes) OVER w AS total,
      count(*) FILTER (WHERE solo) OVER w AS solos
    FROM locked WINDOW w AS (ORDER BY place, due_at, entry)) s
  WHERE place = got AND (taken = 1 OR (total <= $2::bigint AND solos = 0))
)
SELECT m.seq, m.entry, m.id::text, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to,
  coalesce(m.content_type, CASE WHEN m.payload_bytes IS NULL THEN 'application/json' ELSE 'application/octet-stream' END),
  CASE WHEN m.bytes <= $4::bigint THEN m.headers::text END, CASE WHEN m.bytes <= $4::bigint THEN m.payload END,
  CASE WHEN m.bytes <= $4::bigint THEN m.payload_bytes END,
  CASE WHEN isfinite(m.created_at) THEN extract(epoch FROM least(greatest(m.created_at, '0001-01-01 00:00+00'), '9999-12-31 23:59:59+00')) * 1000000 ELSE 0 END::bigint AS created_at_us,
  CASE WHEN isfinite(m.expires_at) THEN greatest(0, floor(extract(epoch FROM least(m.expires_at, '9999-12-31 23:59:59+00') - clock_timestamp()) * 1000)) WHEN m.expires_at = '-infinity' THEN 0 END::bigint AS ttl_ms,
  m.attempts, CASE WHEN isfinite(m.tried_at) THEN floor(extract(epoch FROM clock_timestamp() - m.tried_at) * 1000) END::bigint AS tried_age_ms,
  CASE WHEN isfinite(m.tried_at) AND isfinite(m.due_at) THEN floor(extract(epoch FROM m.due_at - m.tried_at) * 1000) END::bigint AS waited_ms, m.solo,
  CASE WHEN isfinite(m.created_at) THEN greatest(0, floor(extract(epoch FROM clock_timestamp() - m.created_at) * 1000)) ELSE 0 END::bigint AS age_ms,
  CASE WHEN m.bytes > $4::bigint THEN m.bytes END AS too_large
FROM prefix p JOIN outbox.scheduled m ON m.entry = p.entry
ORDER BY m.seq
