-- Where a drain aims: everything handed out so far, and what is due now, in microseconds since 1970.
SELECT last_value - (NOT is_called)::int, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM outbox.message_seq
