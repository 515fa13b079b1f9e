-- 0004: a subscriber's name may be given to a role, and a reply goes where its channel says.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;

-- Whose name it is. Who is not in here is anybody's: one outbox_consumer could mark what another has not seen yet.
CREATE TABLE outbox.subscriber (
  subscriber_id text PRIMARY KEY,
  owner         name NOT NULL
);

-- session_user: this function's own user is its definer; and whoever has SET ROLE is that role, of which he must be a member.
CREATE OR REPLACE FUNCTION outbox.accept(subscriber_id text, message_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_owner  name;
  v_caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
  SELECT owner INTO v_owner FROM outbox.subscriber s WHERE s.subscriber_id = $1;
  IF v_owner IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_owner AND pg_has_role(v_caller, oid, 'MEMBER')) THEN
    RAISE insufficient_privilege USING MESSAGE = format('subscriber %L belongs to role %I, of which %I is no member', $1, v_owner, v_caller);
  END IF;
  INSERT INTO outbox.processed_message (subscriber_id, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;
  RETURN FOUND;
END $$;

-- As before but for the first check: pauses and lists of channels would look at one name, and the broker at another.
CREATE OR REPLACE FUNCTION outbox._put(p_kind text, p_channel text, p_type text, p_payload json, p_bytes bytea, p_key text, p_headers jsonb,
  p_correlation_id text, p_causation_id text, p_reply_to text, p_content_type text, p_id uuid, p_delay interval, p_ttl interval)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_id         uuid  := coalesce(p_id, gen_random_uuid());
  v_headers    jsonb := coalesce(p_headers, '{}');
  v_trace      text  := nullif(current_setting('outbox.traceparent', true), '');
  v_expires_at timestamptz := clock_timestamp() + p_ttl;
BEGIN
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
            clock_timestamp() + p_delay);
  END IF;
  RETURN v_id;
END $$;

INSERT INTO outbox.schema_version (version) VALUES (4);
