-- Begins every transaction of the loop: bounds it on the server's side, and keeps the claim on its index whatever the statistics say.
-- $1 idle_in_transaction_session_timeout, $2 lock_timeout, $3 statement_timeout, $4 transaction_timeout (PostgreSQL 17 and newer), in ms: those of
-- role and database are not ours. The last one runs since BEGIN; setting it anew takes effect only when it has been stopped.
-- Returns what all relays must agree on, and the pauses: channels, and LIKE patterns. Reading outbox.setting locks it until COMMIT: `migrate
-- --order` waits for us.
SELECT (SELECT bool_or(name = 'order' AND value = 'key') FROM outbox.setting),
       (SELECT max(value) FILTER (WHERE name = 'lanes') FROM outbox.setting),
       ARRAY(SELECT scope FROM outbox.paused_now WHERE pattern IS NULL ORDER BY scope)::text,
       ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL ORDER BY pattern)::text,
       CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', '0', true) END,
       CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', $4, true) END,
       set_config('idle_in_transaction_session_timeout', $1, true), set_config('lock_timeout', $2, true),
       set_config('statement_timeout', $3, true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)
