-- Where a drain aims: everything handed out so far, and what is due now.
SELECT last_value - (NOT is_called)::int, clock_timestamp()::text FROM outbox.message_seq
