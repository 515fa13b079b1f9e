-- Who holds the lock under which migrate works, and how to end him; anybody may take it, and need not be a migrate. A row at most.
SELECT CASE WHEN a.pid IS NOT NULL THEN
    format('process %s (%s, user %I%s): SELECT pg_terminate_backend(%s) ends it', a.pid, coalesce(quote_literal(nullif(a.application_name, '')), 'no application name'),
           coalesce(a.usename, 'nobody'), coalesce(', for ' || floor(extract(epoch FROM clock_timestamp() - a.xact_start)) || ' s', ''), a.pid)
  ELSE coalesce((SELECT format('prepared transaction %I (user %I): ROLLBACK PREPARED %L, or COMMIT PREPARED, ends it', gid, owner, gid)
                 FROM pg_prepared_xacts p JOIN pg_locks t ON t.pid IS NULL AND t.locktype = 'transactionid' AND t.transactionid = p.transaction
                 WHERE t.virtualtransaction = l.virtualtransaction LIMIT 1),
                'a session that cannot be seen') END
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid::bigint << 32 | l.objid::bigint = hashtext('outbox-relay migrate')::bigint
LIMIT 1
