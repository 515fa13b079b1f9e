-- 0001: the outbox, its side tables, and the functions that producers and consumers call.
-- Runs in psql as it is: psql -1 -v ON_ERROR_STOP=1 -f 0001_outbox.sql. PostgreSQL 14 or newer.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;

-- One that is there already must be ours: its owner may do with all that is in it as he likes.
DO $$
BEGIN
  IF to_regnamespace('outbox') IS NULL THEN
    CREATE SCHEMA outbox;
  ELSIF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'outbox' AND pg_get_userbyid(nspowner) = current_user) THEN
    RAISE EXCEPTION 'schema outbox belongs to somebody else than %', current_user USING HINT = 'ALTER SCHEMA outbox OWNER TO ...';
  END IF;
END
$$;

CREATE TABLE outbox.schema_version (
  version       int         PRIMARY KEY,
  applied_at    timestamptz NOT NULL DEFAULT now(),
  relay_version text
);

-- seq rises, but is no identity: the default takes the transaction's xid first and only then the number, because the
-- relay's low watermark relies on it (relay/store/mark.h). A plain expression costs nothing here; a function would cost 70 %.
CREATE SEQUENCE outbox.message_seq AS bigint CACHE 1;

-- The OUTBOX table: hot, insert and delete only. The relay deletes a row when the broker has confirmed it.
CREATE TABLE outbox.message (
  seq            bigint      NOT NULL
                             DEFAULT (CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('outbox.message_seq') END),
  id             uuid        NOT NULL DEFAULT gen_random_uuid(),
  kind           text        NOT NULL DEFAULT 'event',
  channel        text        NOT NULL,
  type           text        NOT NULL,
  key            text,
  correlation_id text,
  causation_id   text,
  reply_to       text,
  content_type   text,
  headers        jsonb       NOT NULL DEFAULT '{}',
  payload        json,
  payload_bytes  bytea,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at     timestamptz,
  -- Lets the claim stop at batch.max_bytes without loading payloads; right for plain INSERTs too.
  bytes          bigint      NOT NULL GENERATED ALWAYS AS
    (octet_length(headers::text)::bigint + coalesce(octet_length(payload::text), 0) + coalesce(octet_length(payload_bytes), 0)) STORED,
  CONSTRAINT message_pkey        PRIMARY KEY (seq),
  CONSTRAINT message_kind_ck     CHECK (kind IN ('event', 'command', 'reply')),
  CONSTRAINT message_names_ck    CHECK (octet_length(channel) BETWEEN 1 AND 255 AND octet_length(type) BETWEEN 1 AND 255),
  CONSTRAINT message_shortstr_ck CHECK (octet_length(key) <= 255 AND octet_length(correlation_id) <= 255
                                    AND octet_length(causation_id) <= 255 AND octet_length(reply_to) <= 255
                                    AND octet_length(content_type) <= 255),
  CONSTRAINT message_headers_ck  CHECK (jsonb_typeof(headers) = 'object'),
  CONSTRAINT message_payload_ck  CHECK (num_nonnulls(payload, payload_bytes) <= 1),
  CONSTRAINT message_reply_ck    CHECK (kind <> 'reply' OR correlation_id IS NOT NULL)
) WITH (
  -- Constant thresholds: the table swings between empty and full. vacuum_truncate takes an ACCESS EXCLUSIVE lock.
  vacuum_truncate = false,
  autovacuum_vacuum_scale_factor = 0,        autovacuum_vacuum_threshold = 1000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000,
  autovacuum_analyze_scale_factor = 0,       autovacuum_analyze_threshold = 10000,
  autovacuum_vacuum_cost_delay = 0,
  toast.vacuum_truncate = false,
  toast.autovacuum_vacuum_scale_factor = 0,  toast.autovacuum_vacuum_threshold = 1000,
  toast.autovacuum_vacuum_cost_delay = 0
);
ALTER SEQUENCE outbox.message_seq OWNED BY outbox.message.seq;

-- Rows that wait: retries (seq set: they keep it and are published from here) and delayed messages (seq NULL: when due
-- they enter outbox.message with a new one). A row moved here must never be refused, so the checks bind delayed rows only.
CREATE TABLE outbox.scheduled (
  entry          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  seq            bigint,
  id             uuid        NOT NULL,
  kind           text        NOT NULL,
  channel        text        NOT NULL,
  type           text        NOT NULL,
  key            text,
  correlation_id text,
  causation_id   text,
  reply_to       text,
  content_type   text,
  headers        jsonb       NOT NULL,
  payload        json,
  payload_bytes  bytea,
  created_at     timestamptz NOT NULL,
  expires_at     timestamptz,
  bytes          bigint      NOT NULL,
  due_at         timestamptz NOT NULL,
  attempts       int         NOT NULL DEFAULT 0,
  tried_at       timestamptz,
  solo           boolean     NOT NULL DEFAULT false, -- a session died on it: it is sent alone
  last_error     text,
  CONSTRAINT scheduled_delayed_ck CHECK (seq IS NOT NULL OR (
        octet_length(channel) BETWEEN 1 AND 255 AND octet_length(type) BETWEEN 1 AND 255
    AND coalesce(octet_length(key), 0) <= 255 AND coalesce(octet_length(correlation_id), 0) <= 255
    AND coalesce(octet_length(causation_id), 0) <= 255 AND coalesce(octet_length(reply_to), 0) <= 255
    AND coalesce(octet_length(content_type), 0) <= 255
    AND kind IN ('event', 'command', 'reply') AND (kind <> 'reply' OR correlation_id IS NOT NULL)
    AND jsonb_typeof(headers) = 'object' AND num_nonnulls(payload, payload_bytes) <= 1))
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false);
CREATE INDEX scheduled_due_at_idx ON outbox.scheduled (due_at);

-- Messages set aside, with the reason.
CREATE TABLE outbox.dead_letter (
  entry          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  seq            bigint,
  id             uuid        NOT NULL,
  kind           text        NOT NULL,
  channel        text        NOT NULL,
  type           text        NOT NULL,
  key            text,
  correlation_id text,
  causation_id   text,
  reply_to       text,
  content_type   text,
  headers        jsonb       NOT NULL,
  payload        json,
  payload_bytes  bytea,
  created_at     timestamptz NOT NULL,
  expires_at     timestamptz,
  bytes          bigint      NOT NULL,
  backend        text        NOT NULL,
  attempts       int         NOT NULL,
  reason         text        NOT NULL, -- a word: rejected, expired, attempts, age
  last_error     text        NOT NULL, -- a sentence
  died_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letter_died_at_idx ON outbox.dead_letter (died_at);

-- lz4 costs a fraction of what pglz does, where the server was built with it.
DO $$
DECLARE
  t text;
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
    FOREACH t IN ARRAY ARRAY['message', 'scheduled', 'dead_letter'] LOOP
      EXECUTE 'ALTER TABLE outbox.' || t || ' ALTER payload SET COMPRESSION lz4, ALTER payload_bytes SET COMPRESSION lz4';
    END LOOP;
  END IF;
END
$$;

-- What an operator has paused: a channel, or '*' for all.
CREATE TABLE outbox.paused (
  scope     text        PRIMARY KEY,
  reason    text,
  paused_by text        NOT NULL DEFAULT session_user,
  paused_at timestamptz NOT NULL DEFAULT now(),
  until     timestamptz
);

-- What all relays of this outbox must agree on.
CREATE TABLE outbox.setting (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO outbox.setting (name, value) VALUES ('order', 'none'), ('lanes', '0');

-- One row per running relay; a row that was not seen for 30 s belongs to a dead one.
CREATE TABLE outbox.relay (
  instance    text        PRIMARY KEY,
  version     text        NOT NULL,
  backend     text        NOT NULL,
  host        text        NOT NULL,
  pid         int         NOT NULL,
  state       text        NOT NULL, -- starting, running, blocked, stopping
  reason      text,
  holds       jsonb       NOT NULL DEFAULT '[]', -- resting channels: channel, reason, resting_for_s
  since       timestamptz NOT NULL DEFAULT clock_timestamp(),
  next_try_at timestamptz,
  last_error  text,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Consumers: what each subscriber has already processed.
CREATE TABLE outbox.processed_message (
  subscriber_id text        NOT NULL,
  message_id    uuid        NOT NULL,
  processed_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (subscriber_id, message_id)
);

CREATE VIEW outbox.backlog AS
  SELECT channel, count(*) AS messages, min(created_at) AS oldest, clock_timestamp() - min(created_at) AS oldest_age
  FROM outbox.message GROUP BY channel;

-- The one door through which the functions below write. Runs as the owner, so that producers need no right on the tables.
CREATE FUNCTION outbox._put(p_kind text, p_channel text, p_type text, p_payload json, p_bytes bytea, p_key text, p_headers jsonb,
  p_correlation_id text, p_causation_id text, p_reply_to text, p_content_type text, p_id uuid, p_delay interval, p_ttl interval)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_id         uuid  := coalesce(p_id, gen_random_uuid());
  v_headers    jsonb := coalesce(p_headers, '{}');
  v_trace      text  := nullif(current_setting('outbox.traceparent', true), '');
  v_expires_at timestamptz := clock_timestamp() + p_ttl;
BEGIN
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

-- Overloads for jsonb, json and text, so that jsonb_build_object(...), literals and untyped driver parameters all resolve.
-- The text overload takes JSON text: '{"a": 1}' or '"a string"'.
DO $generate$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['jsonb', 'json', 'text'] LOOP
    EXECUTE format($f$
CREATE FUNCTION outbox.publish(channel text, type text, payload %1$s, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
  correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, id uuid DEFAULT NULL, delay interval DEFAULT NULL,
  ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('event', $1, $2, $3::json, NULL, $4, $5, $6, $7, NULL, NULL, $8, $9, $10) $$;
CREATE FUNCTION outbox.send(channel text, type text, payload %1$s, key text DEFAULT NULL, reply_to text DEFAULT NULL,
  headers jsonb DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, id uuid DEFAULT NULL,
  delay interval DEFAULT NULL, ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('command', $1, $2, $3::json, NULL, $4, $6, $7, $8, $5, NULL, $9, $10, $11) $$;
CREATE FUNCTION outbox.reply(reply_to text, correlation_id text, type text, payload %1$s, headers jsonb DEFAULT NULL,
  causation_id text DEFAULT NULL, id uuid DEFAULT NULL, ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('reply', $1, $3, $4::json, NULL, NULL, $5, $2, $6, $1, NULL, $7, NULL, $8) $$;
$f$, t);
  END LOOP;
END $generate$;

CREATE FUNCTION outbox.publish_bytes(channel text, type text, payload bytea, content_type text DEFAULT 'application/octet-stream',
  key text DEFAULT NULL, headers jsonb DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL,
  id uuid DEFAULT NULL, delay interval DEFAULT NULL, ttl interval DEFAULT NULL)
RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT outbox._put('event', $1, $2, NULL, $3, $5, $6, $7, $8, NULL, $4, $9, $10, $11) $$;

-- Consumers call it in the transaction of their own work: true the first time, false for a duplicate, never NULL.
CREATE FUNCTION outbox.accept(subscriber_id text, message_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO outbox.processed_message (subscriber_id, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING;
  RETURN FOUND;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;

INSERT INTO outbox.schema_version (version) VALUES (1);
