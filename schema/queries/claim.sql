-- Locks the oldest free rows, seq and bytes only, then fetches the longest prefix that fits into max_bytes. A row that a stranger changed while
-- we looked is locked in a newer version than this statement can read: it is left for the next claim.
-- What is larger than $9 bytes comes without its payload and headers.
-- $1 low watermark, $2 rows at most, $3 bytes at most, $4 resting channels, $5 included, $6 excluded channel patterns (LIKE; NULL = all,
-- none), $7 lanes - 1 where order is by key: only rows without a key then (NULL = no order), $8 one seq, a suspect, which may have a
-- key if its lane is held and it is its key's head (NULL = any row), $10 names of channels: these alone (NULL = all).
WITH barred AS MATERIALIZED (
  SELECT unnest($4::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), locked AS MATERIALIZED (
  SELECT seq, bytes, ctid AS version FROM outbox.message m
  WHERE seq >= $1::bigint AND ($8::bigint IS NULL OR seq = $8::bigint)
    AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
    AND ($5::text[] IS NULL OR channel LIKE ANY ($5::text[])) AND ($6::text[] IS NULL OR NOT channel LIKE ANY ($6::text[]))
    AND ($10::text[] IS NULL OR channel IN (SELECT unnest($10::text[])))
    AND ($7::bigint IS NULL OR key IS NULL OR ($8::bigint IS NOT NULL
      AND (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $7::bigint = ANY (nullif(current_setting('outbox.lanes', true), '')::bigint[])
      AND NOT EXISTS (SELECT FROM outbox.message e WHERE e.key IS NOT NULL AND e.seq + 0 < m.seq
        AND (hashtextextended(e.channel, 0) # hashtextextended(e.key, 0)) & $7::bigint
          = (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $7::bigint
        AND hashtextextended(e.channel, 0) = hashtextextended(m.channel, 0) AND hashtextextended(e.key, 0) = hashtextextended(m.key, 0))
      AND NOT EXISTS (SELECT FROM outbox.scheduled e WHERE e.key IS NOT NULL AND e.seq IS NOT NULL AND e.seq < m.seq
        AND hashtextextended(e.channel, 0) = hashtextextended(m.channel, 0) AND hashtextextended(e.key, 0) = hashtextextended(m.key, 0))))
  ORDER BY seq LIMIT $2::int
  FOR UPDATE SKIP LOCKED
), prefix AS MATERIALIZED (
  SELECT seq, version FROM (SELECT seq, version, row_number() OVER w AS place, sum(bytes) OVER w AS total FROM locked WINDOW w AS (ORDER BY seq)) s
  WHERE place = 1 OR total <= $3::bigint
)
SELECT m.seq, NULL::bigint AS entry, m.id::text, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to,
  coalesce(m.content_type, CASE WHEN m.payload_bytes IS NULL THEN 'application/json' ELSE 'application/octet-stream' END),
  CASE WHEN m.bytes <= $9::bigint THEN m.headers::text END, CASE WHEN m.bytes <= $9::bigint THEN m.payload END,
  CASE WHEN m.bytes <= $9::bigint THEN m.payload_bytes END,
  CASE WHEN isfinite(m.created_at) THEN extract(epoch FROM least(greatest(m.created_at, '0001-01-01 00:00+00'), '9999-12-31 23:59:59+00')) * 1000000 ELSE 0 END::bigint AS created_at_us,
  CASE WHEN isfinite(m.expires_at) THEN greatest(0, floor(extract(epoch FROM least(m.expires_at, '9999-12-31 23:59:59+00') - clock_timestamp()) * 1000)) WHEN m.expires_at = '-infinity' THEN 0 END::bigint AS ttl_ms,
  0 AS attempts, NULL::bigint AS tried_age_ms, NULL::bigint AS waited_ms, false AS solo,
  CASE WHEN isfinite(m.created_at) THEN greatest(0, floor(extract(epoch FROM clock_timestamp() - m.created_at) * 1000)) ELSE 0 END::bigint AS age_ms,
  CASE WHEN m.bytes > $9::bigint THEN m.bytes END AS too_large
FROM prefix p JOIN outbox.message m ON m.seq = p.seq AND m.ctid = p.version
ORDER BY m.seq
