-- $1 channel, or '*' for all; $2 ms until it ends by itself (NULL = never); $3 reason.
INSERT INTO outbox.paused AS p (scope, reason, until)
VALUES ($1, $3, clock_timestamp() + $2::bigint * interval '1 millisecond')
ON CONFLICT (scope) DO UPDATE SET reason = excluded.reason, until = excluded.until, paused_by = session_user, paused_at = now()
