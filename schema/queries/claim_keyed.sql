-- Order by key: claims what stands at the head of its key, in the lanes that outbox.lanes says are held.
-- $1 low watermark, $2 rows at most, $3 bytes at most, $4 resting channels, $5 included, $6 excluded patterns, $7 lanes - 1,
-- $8, $9 by lane: hashes of the channel and the key behind which the walk begins, so that none is always last; outbox.walked is set to where
-- it ended: lane, channel hash, key hash, lane, ... What is larger than $10 bytes comes without its payload and headers. $11 names of
-- channels: these alone (NULL = all).
--
-- walk: a loose index scan, one step per key and all lanes side by side, 4000 steps in all; a hot key costs one step, a barred channel one
-- per lane; where channels are named, it goes from one to the next.
-- A key's head is its smallest seq over message and scheduled: a key whose head waits for a retry is passed over.
-- run: heads first, then followers, until the batch is full. locked, prefix: a row that a stranger has locked or changed cuts its key
-- there.
WITH RECURSIVE barred AS MATERIALIZED (
  SELECT unnest($4::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
), named AS MATERIALIZED (
  SELECT channel, greatest(hashtextextended(channel, 0), -9223372036854775807) AS channel_hash FROM unnest($11::text[]) channel
), start AS MATERIALIZED (
  SELECT lane, ($8::bigint[])[lane + 1] AS channel_hash, ($9::bigint[])[lane + 1] AS key_hash,
    greatest(20, 4000 / count(*) OVER ()) AS most_steps
  FROM unnest(nullif(current_setting('outbox.lanes', true), '')::bigint[]) lane
  WHERE NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
), walk (lane, channel_hash, key_hash, last_channel_hash, last_key_hash, wrapped, step, most_steps, passed, seq, waits) AS (
  SELECT lane, channel_hash, key_hash, 9223372036854775807, 9223372036854775807, false, 0, most_steps, false, NULL::bigint, NULL::bigint
  FROM start
  UNION ALL
  SELECT w.lane, n.channel_hash, n.key_hash, n.last_channel_hash, n.last_key_hash, n.wrapped, w.step + 1, w.most_steps, n.passed, n.seq,
    (SELECT s.seq FROM outbox.scheduled s
     WHERE s.key IS NOT NULL AND s.seq IS NOT NULL
       AND hashtextextended(s.channel, 0) = n.channel_hash AND hashtextextended(s.key, 0) = n.key_hash
     ORDER BY hashtextextended(s.channel, 0), hashtextextended(s.key, 0), s.seq LIMIT 1)
  FROM walk w CROSS JOIN LATERAL (
    (SELECT hashtextextended(m.channel, 0) AS channel_hash, hashtextextended(m.key, 0) AS key_hash, m.seq, w.wrapped,
       w.last_channel_hash, w.last_key_hash,
       m.channel IN (SELECT channel FROM barred) OR m.channel LIKE ANY ((SELECT paused FROM patterns)::text[]) OR NOT ($5::text[] IS NULL OR m.channel LIKE ANY ($5::text[]))
         OR ($6::text[] IS NOT NULL AND m.channel LIKE ANY ($6::text[]))
         OR ($11::text[] IS NOT NULL AND m.channel NOT IN (SELECT channel FROM named)) AS passed
     FROM outbox.message m
     WHERE m.key IS NOT NULL AND m.seq + 0 >= $1::bigint
       AND (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $7::bigint = w.lane
       AND (hashtextextended(m.channel, 0), hashtextextended(m.key, 0))
         > (CASE WHEN w.passed AND $11::text[] IS NOT NULL
              THEN coalesce((SELECT min(channel_hash) FROM named n WHERE n.channel_hash > w.channel_hash) - 1, 9223372036854775807)
              ELSE w.channel_hash END,
            CASE WHEN w.passed THEN 9223372036854775807 ELSE w.key_hash END)
       AND (hashtextextended(m.channel, 0), hashtextextended(m.key, 0)) <= (w.last_channel_hash, w.last_key_hash)
     ORDER BY hashtextextended(m.channel, 0), hashtextextended(m.key, 0), m.seq + 0 LIMIT 1)
    UNION ALL
    SELECT -9223372036854775808, -9223372036854775808, NULL, true, s.channel_hash, s.key_hash, false
    FROM start s WHERE NOT w.wrapped AND s.lane = w.lane
    LIMIT 1) n
  WHERE w.step < w.most_steps
), heads AS MATERIALIZED (
  SELECT lane, channel_hash, key_hash, nth, seq, coalesce(waits - 1, 9223372036854775807) AS last_seq
  FROM (SELECT *, row_number() OVER () AS nth FROM walk) w
  WHERE seq IS NOT NULL AND NOT passed AND (waits IS NULL OR waits > seq)
  LIMIT $2::int
), walked AS MATERIALIZED (
  SELECT DISTINCT ON (lane) lane, channel_hash, key_hash
  FROM (SELECT * FROM walk LIMIT CASE WHEN (SELECT count(*) FROM heads) >= $2::int THEN (SELECT max(nth) FROM heads) END) w
  ORDER BY lane, step DESC
), told AS MATERIALIZED (
  SELECT set_config('outbox.walked', coalesce((SELECT string_agg(concat_ws(',', lane, channel_hash, key_hash), ',') FROM walked), ''), true)
), run AS MATERIALIZED (
  SELECT r.seq, r.bytes, r.version, h.seq AS head, r.place
  FROM heads h CROSS JOIN LATERAL (
    SELECT k.seq, k.bytes, k.version, row_number() OVER (ORDER BY k.seq) AS place
    FROM (SELECT m.seq, m.bytes, m.ctid AS version FROM outbox.message m
          WHERE m.key IS NOT NULL AND (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $7::bigint = h.lane
            AND hashtextextended(m.channel, 0) = h.channel_hash AND hashtextextended(m.key, 0) = h.key_hash
            AND m.seq + 0 BETWEEN h.seq AND h.last_seq
          ORDER BY (hashtextextended(m.channel, 0) # hashtextextended(m.key, 0)) & $7::bigint, hashtextextended(m.channel, 0),
                   hashtextextended(m.key, 0), m.seq + 0
          LIMIT least(50, ($2::int - 1) / (SELECT count(*) FROM heads) + 1)) k) r
  ORDER BY r.place, r.seq LIMIT $2::int
), locked AS MATERIALIZED (
  SELECT r.* FROM run r JOIN outbox.message m ON m.seq = r.seq AND m.ctid = r.version WHERE (SELECT count(*) FROM told) > 0
  FOR UPDATE OF m SKIP LOCKED
), prefix AS MATERIALIZED (
  SELECT seq FROM (
    SELECT seq, place, row_number() OVER (PARTITION BY head ORDER BY seq) AS got, row_number() OVER w AS taken, sum(bytes) OVER w AS total
    FROM locked WINDOW w AS (ORDER BY place, seq)) s
  WHERE place = got AND (taken = 1 OR total <= $3::bigint)
)
SELECT m.seq, NULL::bigint AS entry, m.id::text, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to,
  coalesce(m.content_type, CASE WHEN m.payload_bytes IS NULL THEN 'application/json' ELSE 'application/octet-stream' END),
  CASE WHEN m.bytes <= $10::bigint THEN m.headers::text END, CASE WHEN m.bytes <= $10::bigint THEN m.payload END,
  CASE WHEN m.bytes <= $10::bigint THEN m.payload_bytes END,
  CASE WHEN isfinite(m.created_at) THEN extract(epoch FROM least(greatest(m.created_at, '0001-01-01 00:00+00'), '9999-12-31 23:59:59+00')) * 1000000 ELSE 0 END::bigint AS created_at_us,
  CASE WHEN isfinite(m.expires_at) THEN greatest(0, floor(extract(epoch FROM least(m.expires_at, '9999-12-31 23:59:59+00') - clock_timestamp()) * 1000)) WHEN m.expires_at = '-infinity' THEN 0 END::bigint AS ttl_ms,
  0 AS attempts, NULL::bigint AS tried_age_ms, NULL::bigint AS waited_ms, false AS solo,
  CASE WHEN isfinite(m.created_at) THEN greatest(0, floor(extract(epoch FROM clock_timestamp() - m.created_at) * 1000)) ELSE 0 END::bigint AS age_ms,
  CASE WHEN m.bytes > $10::bigint THEN m.bytes END AS too_large
FROM prefix p JOIN outbox.message m ON m.seq = p.seq
ORDER BY m.seq
