-- 0005: no message is larger than 256 MiB, so that each can be moved within the time that a statement has; delayed messages are found by channel, too.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;

-- All or nothing, and shorter than deadlock_timeout: whoever is in the middle of a transaction must neither wait long for us nor die for us.
SET LOCAL lock_timeout = '500ms';
LOCK TABLE outbox.message, outbox.scheduled IN ACCESS EXCLUSIVE MODE;
LOCK TABLE outbox.dead_letter IN ROW EXCLUSIVE MODE;
SET LOCAL lock_timeout = 0;

-- Those that are there already are dead letters from now on: no relay could send, nor move them. What was delayed has a seq from now on: it can be
-- tried again. What does not arrive does not leave, either.
DO $set_aside$
DECLARE
  v_left    bigint;
  v_arrived bigint;
BEGIN
  WITH of_message AS (
    DELETE FROM outbox.message WHERE bytes > 268435456 RETURNING *
  ), of_scheduled AS (
    DELETE FROM outbox.scheduled WHERE bytes > 268435456 RETURNING *
  ), moved AS (
    SELECT seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers, payload, payload_bytes, created_at, expires_at,
      bytes, 0 AS attempts FROM of_message
    UNION ALL
    SELECT coalesce(seq, nextval('outbox.message_seq')), id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers, payload,
      payload_bytes, created_at, expires_at, bytes, attempts FROM of_scheduled
  ), arrived AS (
    INSERT INTO outbox.dead_letter (seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
      payload, payload_bytes, created_at, expires_at, bytes, backend, attempts, reason, last_error)
    SELECT seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
      payload, payload_bytes, created_at, expires_at, bytes, 'migrate', attempts, 'rejected', 'larger than 256 MiB'
    FROM moved ORDER BY seq
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM of_message) + (SELECT count(*) FROM of_scheduled), (SELECT count(*) FROM arrived) INTO v_left, v_arrived;
  IF v_arrived <> v_left THEN
    RAISE EXCEPTION 'a trigger, a rule or a policy keeps rows out of outbox.dead_letter: of % messages that are larger than 256 MiB % arrived', v_left, v_arrived;
  END IF;
END $set_aside$;

-- NOT VALID: nothing is there that breaks it, and nobody has to wait for a proof. A row that was moved must never be refused.
ALTER TABLE outbox.message ADD CONSTRAINT message_bytes_ck CHECK (bytes <= 268435456) NOT VALID;
ALTER TABLE outbox.scheduled ADD CONSTRAINT scheduled_bytes_ck CHECK (seq IS NOT NULL OR bytes <= 268435456) NOT VALID;

-- Retries, and delayed messages: neither are looked for among the others, however many there are. entry: thousands may be due at the same moment. The
-- third: each channel has its turn to enter outbox.message, however many of another are due.
DROP INDEX outbox.scheduled_due_at_idx;
CREATE INDEX scheduled_due_at_idx ON outbox.scheduled (due_at, entry) WHERE seq IS NOT NULL;
CREATE INDEX scheduled_delayed_idx ON outbox.scheduled (due_at, entry) WHERE seq IS NULL;
CREATE INDEX scheduled_turn_idx ON outbox.scheduled (channel, due_at, entry) WHERE seq IS NULL;

-- As before, but for the first check, and a delay below zero is none: it would be due before all that others have delayed.
CREATE OR REPLACE FUNCTION outbox._put(p_kind text, p_channel text, p_type text, p_payload json, p_bytes bytea, p_key text, p_headers jsonb,
  p_correlation_id text, p_causation_id text, p_reply_to text, p_content_type text, p_id uuid, p_delay interval, p_ttl interval)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_id         uuid  := coalesce(p_id, gen_random_uuid());
  v_headers    jsonb := coalesce(p_headers, '{}');
  v_trace      text  := nullif(current_setting('outbox.traceparent', true), '');
  v_expires_at timestamptz := clock_timestamp() + p_ttl;
BEGIN
  IF NOT isfinite(p_delay) OR NOT isfinite(p_ttl) THEN
    RAISE invalid_parameter_value USING MESSAGE = 'delay and ttl are finite';
  END IF;
  IF p_kind = 'reply' AND p_channel IS DISTINCT FROM p_reply_to THEN
    RAISE invalid_parameter_value USING MESSAGE = 'the channel of a reply is its reply_to: call outbox.reply()';
  END IF;
  IF v_trace IS NOT NULL AND NOT v_headers ? 'traceparent' THEN
    v_headers := jsonb_strip_nulls(jsonb_build_object('traceparent', v_trace,
      'tracestate', nullif(current_setting('outbox.tracestate', true), ''))) || v_headers;
  END IF;
  p_correlation_id := coalesce(p_correlation_id, nullif(current_setting('outbox.correlation_id', true), ''));
  p_causation_id   := coalesce(p_causation_id,   nullif(current_setting('outbox.causation_id',   true), ''));
  IF p_kind = 'command' AND p_reply_to IS NOT NULL AND p_correlation_id IS NULL THEN
    p_correlation_id := v_id::text;
  END IF;
  IF p_delay IS NULL THEN
    INSERT INTO outbox.message (id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
                                payload, payload_bytes, expires_at)
    VALUES (v_id, p_kind, p_channel, p_type, p_key, p_correlation_id, p_causation_id, p_reply_to, p_content_type, v_headers,
            p_payload, p_bytes, v_expires_at);
  ELSE
    INSERT INTO outbox.scheduled (id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
                                  payload, payload_bytes, created_at, expires_at, bytes, due_at)
    VALUES (v_id, p_kind, p_channel, p_type, p_key, p_correlation_id, p_causation_id, p_reply_to, p_content_type, v_headers,
            p_payload, p_bytes, clock_timestamp(), v_expires_at,
            octet_length(v_headers::text)::bigint + coalesce(octet_length(p_payload::text), 0) + coalesce(octet_length(p_bytes), 0),
            clock_timestamp() + greatest(p_delay, interval '0'));
  END IF;
  RETURN v_id;
END $$;

-- As before, but each type is named with its schema.
DO $generate$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['jsonb', 'json', 'text'] LOOP
    EXECUTE format($f$
CREATE OR REPLACE FUNCTION outbox.publish(channel text, type text, payload %1$s, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
  correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, id uuid DEFAULT NULL, delay interval DEFAULT NULL,
  ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('event', $1, $2, $3::pg_catalog.json, NULL, $4, $5, $6, $7, NULL, NULL, $8, $9, $10) $$;
CREATE OR REPLACE FUNCTION outbox.send(channel text, type text, payload %1$s, key text DEFAULT NULL, reply_to text DEFAULT NULL,
  headers jsonb DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, id uuid DEFAULT NULL,
  delay interval DEFAULT NULL, ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('command', $1, $2, $3::pg_catalog.json, NULL, $4, $6, $7, $8, $5, NULL, $9, $10, $11) $$;
CREATE OR REPLACE FUNCTION outbox.reply(reply_to text, correlation_id text, type text, payload %1$s, headers jsonb DEFAULT NULL,
  causation_id text DEFAULT NULL, id uuid DEFAULT NULL, ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('reply', $1, $3, $4::pg_catalog.json, NULL, NULL, $5, $2, $6, $1, NULL, $7, NULL, $8) $$;
$f$, t);
  END LOOP;
END $generate$;

INSERT INTO outbox.schema_version (version) VALUES (5);
