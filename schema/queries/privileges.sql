-- What keeps this user from being a relay's: a right that he lacks, or a policy that hides rows from him; a sentence each, with its fix.
SELECT format('user %s lacks %s on %s: GRANT outbox_relay TO %I, as the schema''s owner', current_user, need.privilege, need.object, current_user)
FROM (VALUES ('outbox.message', 'SELECT'), ('outbox.message', 'INSERT'), ('outbox.message', 'DELETE'),
             ('outbox.scheduled', 'SELECT'), ('outbox.scheduled', 'INSERT'), ('outbox.scheduled', 'UPDATE'), ('outbox.scheduled', 'DELETE'),
             ('outbox.dead_letter', 'INSERT'), ('outbox.paused', 'SELECT'), ('outbox.paused_now', 'SELECT'), ('outbox.setting', 'SELECT'),
             ('outbox.relay', 'SELECT'), ('outbox.relay', 'INSERT'), ('outbox.relay', 'UPDATE'), ('outbox.relay', 'DELETE'),
             ('outbox.message_seq', 'SELECT'), ('outbox.message_seq', 'USAGE')) AS need (object, privilege)
WHERE NOT CASE WHEN need.object = 'outbox.message_seq' THEN has_sequence_privilege(need.object, need.privilege)
               ELSE has_table_privilege(need.object, need.privilege) END
UNION ALL
SELECT format('user %s lacks UPDATE of one column on outbox.message: GRANT outbox_relay TO %I, as the schema''s owner', current_user, current_user)
WHERE NOT has_any_column_privilege('outbox.message', 'UPDATE')
UNION ALL
SELECT format('row-level security hides rows of table "%s" from user %s: ALTER TABLE outbox.%s DISABLE ROW LEVEL SECURITY, or ALTER ROLE %I BYPASSRLS',
              c.relname, current_user, c.relname, current_user)
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace('outbox') AND c.relrowsecurity AND c.relkind IN ('r', 'p') AND c.relname <> 'processed_message'
  AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls))
