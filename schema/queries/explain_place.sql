-- Where a message stands and what it waits for, in sentences; $1 its id, $2 included, $3 excluded patterns of this configuration, $4 its
-- channel as relays write it into their holds.
-- The first row is about the same one as explain.sql's.
WITH found AS (
  SELECT 1 AS place, seq, channel, key, NULL::timestamptz AS due_at, NULL::text AS reason, NULL::text AS last_error, 0 AS attempts,
         NULL::timestamptz AS died_at, expires_at
  FROM outbox.message WHERE id = $1::uuid
  UNION ALL
  SELECT 2, seq, channel, key, due_at, NULL, last_error, attempts, NULL, expires_at FROM outbox.scheduled WHERE id = $1::uuid
  UNION ALL
  SELECT 3, seq, channel, key, NULL, reason, last_error, attempts, died_at, NULL FROM outbox.dead_letter WHERE id = $1::uuid
), one AS (SELECT * FROM found ORDER BY place LIMIT 1)
SELECT CASE place WHEN 1 THEN 'outbox.message' WHEN 2 THEN 'outbox.scheduled' ELSE 'outbox.dead_letter' END,
  concat_ws('; ',
    CASE WHEN place = 3 THEN format('dead since %s: %s: %s; outbox-relay dead retry %s sends it again', died_at, reason, last_error, $1::uuid) END,
    CASE WHEN place = 2 AND seq IS NULL THEN format('delayed until %s', due_at) END,
    CASE WHEN place = 2 AND seq IS NOT NULL THEN format('waits for another try until %s (%s counted attempts): %s', due_at, attempts, last_error) END,
    CASE WHEN place < 3 AND EXISTS (SELECT FROM outbox.paused_now p WHERE p.scope = channel OR channel LIKE p.pattern) THEN 'its channel is paused' END,
    CASE WHEN place < 3 AND (NOT coalesce(channel LIKE ANY ($2::text[]), true) OR coalesce(channel LIKE ANY ($3::text[]), false)) THEN
      'the channels of this configuration leave it out' END,
    CASE WHEN place < 3 THEN
      (SELECT format('its channel rests, says relay %s: %s', r.instance, h.value ->> 'reason')
       FROM outbox.relay r CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(r.holds) WHEN 'array' THEN r.holds ELSE '[]' END) h
       WHERE r.seen_at > clock_timestamp() - interval '30 seconds' AND h.value ->> 'channel' = $4 ORDER BY r.seen_at DESC LIMIT 1) END,
    CASE WHEN place < 3 THEN
      (SELECT format('relay %s is blocked: %s', r.instance, coalesce(r.reason, r.last_error)) FROM outbox.relay r
       WHERE r.state = 'blocked' AND r.seen_at > clock_timestamp() - interval '30 seconds' ORDER BY r.seen_at DESC LIMIT 1) END,
    CASE WHEN expires_at <= clock_timestamp() THEN 'it has expired: it becomes a dead letter without being sent' END,
    CASE WHEN place < 3 AND key IS NOT NULL AND (SELECT value FROM outbox.setting WHERE name = 'order') = 'key' THEN
      (SELECT format('waits behind message %s of its key (seq %s)', e.id, e.seq)
       FROM (SELECT id, seq, channel, key FROM outbox.message UNION ALL SELECT id, seq, channel, key FROM outbox.scheduled) e
       WHERE e.channel = one.channel AND e.key = one.key AND e.seq < one.seq ORDER BY e.seq LIMIT 1) END)
FROM one
