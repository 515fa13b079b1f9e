-- Between transactions nothing is at stake, and an idle relay has no reason to connect anew. For connections without a pooler: it is the session's.
SELECT set_config('idle_session_timeout', '0', false)
