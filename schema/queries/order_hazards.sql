-- What breaks or slows order by key in this outbox; a sentence each.
SELECT format('sequence outbox.message_seq has CACHE %s: sessions hand out numbers out of order; run ALTER SEQUENCE outbox.message_seq CACHE 1',
              seqcache)
FROM pg_catalog.pg_sequence WHERE seqrelid = 'outbox.message_seq'::regclass AND seqcache > 1
UNION ALL
SELECT 'sequence outbox.message_seq counts down or in cycles: run ALTER SEQUENCE outbox.message_seq INCREMENT 1 NO CYCLE'
FROM pg_catalog.pg_sequence WHERE seqrelid = 'outbox.message_seq'::regclass AND (seqincrement < 1 OR seqcycle)
UNION ALL
SELECT 'outbox.message.seq has another default than the schema''s: it must take the transaction id first, then nextval, for every row'
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = 'outbox.message'::regclass AND a.attname = 'seq'
  AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') !~ 'pg_current_xact_id\(\).*nextval'
UNION ALL
SELECT format('trigger %s may set seq before the aggregate is locked: it must leave seq alone', tgname)
FROM pg_catalog.pg_trigger WHERE tgrelid = 'outbox.message'::regclass AND NOT tgisinternal AND tgtype & 7 = 7
UNION ALL
SELECT format('index outbox.%s is missing: run ''outbox-relay migrate --order none'' and then ''--order key'', or claims are slow', name)
FROM unnest(ARRAY['message_order_idx', 'message_unkeyed_idx', 'scheduled_order_idx']) name
WHERE to_regclass('outbox.' || name) IS NULL
UNION ALL
SELECT 'index outbox.message_order_idx is not the one that claims need: run ''outbox-relay migrate --order none'' and then ''--order key'', or they are slow'
WHERE pg_get_indexdef(to_regclass('outbox.message_order_idx')) NOT LIKE '%(seq + 0)%'
