-- Goes in front of a statement of a command or of the supervisor, in its group, which is one transaction: the limits of role and database are not
-- ours. The server gives up before we do, so that nobody leaves a statement behind: $1 ms for a statement, $2 ms for the transaction (PostgreSQL
-- 17 and newer). Between two statements of migrate's transactions pass milliseconds, and a client that is gone must not hold its locks.
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', '0', true) END,
       CASE WHEN current_setting('server_version_num')::int >= 170000 THEN set_config('transaction_timeout', $2, true) END,
       set_config('idle_in_transaction_session_timeout', '10000', true), set_config('lock_timeout', '0', true),
       set_config('statement_timeout', $1, true)
