-- Goes in front of a statement of a command or of the supervisor, in its group, which is one transaction: the limits of role and database are not
-- ours, and the server gives up when we do. $1: ms. Without jit: it takes longer than the query, because the planner thinks that each row costs
-- a subquery.
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', '0', true) END,
       set_config('idle_in_transaction_session_timeout', '0', true), set_config('lock_timeout', '0', true),
       set_config('statement_timeout', $1, true), set_config('jit', 'off', true)
