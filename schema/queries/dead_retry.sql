-- Sends dead letters again, oldest first: to outbox.scheduled, due now, with the seq and the id they always had and no attempt counted.
-- Says how many; what did not arrive did not leave, either: the cast fails then. An expiry that has passed is dropped: it was meant for the first time. Up to entry $6; the other parameters as in dead_list.sql; nothing is locked but what moves.
WITH looked AS MATERIALIZED (
  SELECT entry, bytes FROM outbox.dead_letter
  WHERE ($1::uuid[] IS NULL OR id = ANY ($1::uuid[])) AND ($2::text IS NULL OR reason = $2::text)
    AND ($3::text IS NULL OR channel LIKE $3::text)
    AND ($4::bigint IS NULL OR died_at >= clock_timestamp() - $4::bigint * interval '1 millisecond')
    AND entry <= $6::bigint
  ORDER BY entry LIMIT $5::bigint
), chosen AS MATERIALIZED ( -- 8 MiB at once, and one always
  SELECT entry FROM (SELECT entry, sum(bytes) OVER w AS total, row_number() OVER w AS place FROM looked WINDOW w AS (ORDER BY entry)) sums
  WHERE place = 1 OR total <= 8388608
), moved AS (
  DELETE FROM outbox.dead_letter d USING chosen c WHERE d.entry = c.entry RETURNING d.*
), arrived AS (
  INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
    payload, payload_bytes, created_at, expires_at, bytes, due_at, last_error)
  SELECT seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers, payload, payload_bytes,
    created_at, CASE WHEN expires_at > clock_timestamp() THEN expires_at END, bytes, clock_timestamp(), last_error
  FROM moved ORDER BY entry
  RETURNING 1
)
SELECT CASE WHEN (SELECT count(*) FROM arrived) = (SELECT count(*) FROM moved) THEN (SELECT count(*) FROM arrived)
            ELSE ('a trigger, a rule or a policy keeps rows out of outbox.scheduled; of ' || (SELECT count(*) FROM moved) || ' not all arrived')::bigint END
