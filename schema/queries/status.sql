-- What `status` tells, as one JSON object.
SELECT jsonb_build_object(
  'schema_version', (SELECT max(version) FROM outbox.schema_version),
  'backlog', (SELECT count(*) FROM outbox.message),
  'oldest_message_age_s', (SELECT coalesce(round(extract(epoch FROM clock_timestamp() - min(created_at)), 3), 0) FROM outbox.message),
  'scheduled', (SELECT count(*) FROM outbox.scheduled),
  'dead_letters', (SELECT count(*) FROM outbox.dead_letter),
  'channels', (SELECT coalesce(jsonb_agg(jsonb_build_object('channel', channel, 'messages', messages,
                 'oldest_age_s', round(extract(epoch FROM oldest_age), 3)) ORDER BY oldest), '[]')
               FROM (SELECT * FROM outbox.backlog ORDER BY oldest LIMIT 100) b),
  'paused', (SELECT coalesce(jsonb_agg(jsonb_build_object('scope', scope, 'reason', reason, 'until', until) ORDER BY scope), '[]')
             FROM outbox.paused WHERE until IS NULL OR until > clock_timestamp()),
  'relays', (SELECT coalesce(jsonb_agg(jsonb_build_object('instance', instance, 'version', version, 'backend', backend, 'host', host,
               'pid', pid, 'state', state, 'reason', reason, 'holds', holds, 'since', since, 'next_try_at', next_try_at,
               'last_error', last_error, 'started_at', started_at, 'seen_at', seen_at,
               'stale', seen_at < clock_timestamp() - interval '30 seconds') ORDER BY instance), '[]') FROM outbox.relay),
  'vacuum_horizon_age_s', (SELECT coalesce(round(extract(epoch FROM clock_timestamp() - min(xact_start)), 3), 0)
                           FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL)
)::text
