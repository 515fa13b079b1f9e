-- $1 channel, or '*' for the pause of all. Pauses that are over go, too.
DELETE FROM outbox.paused WHERE scope = $1 OR until <= clock_timestamp() RETURNING scope = $1
