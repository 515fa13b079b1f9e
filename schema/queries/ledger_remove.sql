-- $1 instance; rows that nobody has refreshed for a day go, too.
DELETE FROM outbox.relay WHERE instance = $1 OR seen_at < clock_timestamp() - interval '1 day'
