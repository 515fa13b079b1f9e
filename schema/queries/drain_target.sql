-- Where a drain aims: everything handed out so far, and what is due now, in microseconds since 1970. Rows may be ahead of the sequence, after a
-- failover by logical replication, which carries no sequences.
SELECT greatest(last_value - (NOT is_called)::int, (SELECT max(seq) FROM outbox.message)), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM outbox.message_seq
