-- Bounds this transaction on the server's side, and keeps the claim on the primary key whatever the statistics say.
-- $1 idle_in_transaction_session_timeout, $2 lock_timeout, $3 statement_timeout, in ms.
SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('lock_timeout', $2, true),
       set_config('statement_timeout', $3, true), set_config('search_path', 'pg_catalog', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
