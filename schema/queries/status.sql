-- What `status` tells, as one JSON object; of long lists the first. Of relays those that are alive and in trouble come first.
SELECT jsonb_build_object(
  'schema_version', (SELECT max(version) FROM outbox.schema_version),
  'backlog', (SELECT count(*) FROM outbox.message),
  'oldest_message_age_s', (SELECT coalesce(round(extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE isfinite(created_at))), 3), 0) FROM outbox.message),
  'scheduled', (SELECT count(*) FROM outbox.scheduled),
  'scheduled_due', (SELECT count(*) FROM outbox.scheduled WHERE due_at <= (SELECT clock_timestamp())),
  'dead_letters', (SELECT count(*) FROM outbox.dead_letter),
  'channels', (SELECT coalesce(jsonb_agg(jsonb_build_object('channel', channel, 'messages', messages,
                 'oldest_age_s', coalesce(round(extract(epoch FROM clock_timestamp() - oldest), 3), 0)) ORDER BY oldest), '[]')
               FROM (SELECT channel, count(*) AS messages, min(created_at) FILTER (WHERE isfinite(created_at)) AS oldest
                     FROM outbox.message GROUP BY channel ORDER BY oldest LIMIT 100) b),
  'paused', (SELECT coalesce(jsonb_agg(jsonb_build_object('scope', scope, 'reason', reason, 'paused_by', paused_by, 'paused_at', paused_at,
               'until', until) ORDER BY scope), '[]')
             FROM (SELECT * FROM outbox.paused JOIN outbox.paused_now USING (scope) ORDER BY scope LIMIT 1000) p),
  'paused_more', (SELECT greatest(0, count(*) - 1000) FROM outbox.paused_now),
  'retrying', (SELECT coalesce(jsonb_agg(jsonb_build_object('channel', channel, 'messages', messages, 'attempts', attempts,
                 'next_try_in_s', CASE WHEN isfinite(due_at) THEN greatest(0, ceil(extract(epoch FROM due_at - clock_timestamp()))) END, 'last_error', last_error) ORDER BY messages DESC), '[]')
               FROM (SELECT channel, count(*) AS messages, max(attempts) AS attempts, min(due_at) AS due_at,
                            (array_agg(last_error ORDER BY tried_at DESC NULLS LAST))[1] AS last_error
                     FROM outbox.scheduled WHERE seq IS NOT NULL GROUP BY channel ORDER BY count(*) DESC LIMIT 100) r),
  'order', (SELECT value FROM outbox.setting WHERE name = 'order'),
  'lanes', (SELECT value::int FROM outbox.setting WHERE name = 'lanes'),
  'relays', (SELECT coalesce(jsonb_agg(jsonb_build_object('instance', instance, 'version', version, 'backend', backend, 'host', host,
               'pid', pid, 'state', state, 'reason', reason,
               'holds', (SELECT coalesce(jsonb_agg(hold), '[]') FROM (SELECT hold FROM jsonb_array_elements(holds) hold LIMIT 100) h),
               'holds_more', greatest(0, jsonb_array_length(holds) - 100), 'since', since, 'next_try_at', next_try_at,
               'last_error', last_error, 'started_at', started_at, 'seen_at', seen_at,
               'stale', seen_at < clock_timestamp() - interval '30 seconds') ORDER BY instance), '[]')
             FROM (SELECT instance, version, backend, host, pid, state, reason, since, next_try_at, last_error, started_at, seen_at,
                     CASE jsonb_typeof(holds) WHEN 'array' THEN holds ELSE '[]' END AS holds
                   FROM outbox.relay
                   ORDER BY seen_at >= clock_timestamp() - interval '30 seconds' DESC, state = 'blocked' DESC, holds <> '[]' DESC, seen_at DESC
                   LIMIT 200) r),
  'relays_more', (SELECT greatest(0, count(*) - 200) FROM outbox.relay),
  'vacuum_horizon_age_s', (SELECT coalesce(round(extract(epoch FROM clock_timestamp() - min(xact_start)), 3), 0)
                           FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL)
)::text
