-- $1 instance, $2 host, $3 pid: our own row, not that of another who took the name; rows that nobody has refreshed for a day go, too.
DELETE FROM outbox.relay USING set_config('synchronous_commit', 'local', true) mode
WHERE mode = 'local' AND ((instance = $1 AND host = $2 AND pid = $3::int) OR seen_at < clock_timestamp() - interval '1 day')
