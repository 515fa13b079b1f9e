-- First half of the low watermark: the highest seq handed out, read before this transaction takes its xid.
-- A cache above 1 hands out numbers that last_value does not tell of: no mark then.
SELECT last_value - (NOT is_called)::int AS highest,
       (SELECT seqcache FROM pg_catalog.pg_sequence WHERE seqrelid = 'outbox.message_seq'::regclass) AS cache,
       pg_current_xact_id_if_assigned() IS NULL AS before_xid
FROM outbox.message_seq
