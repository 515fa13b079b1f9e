-- The rights that a relay needs and this user lacks: user, right, object.
SELECT current_user, need.privilege, need.object
FROM (VALUES ('outbox.message', 'SELECT'), ('outbox.message', 'INSERT'), ('outbox.message', 'DELETE'),
             ('outbox.scheduled', 'SELECT'), ('outbox.scheduled', 'INSERT'), ('outbox.scheduled', 'UPDATE'), ('outbox.scheduled', 'DELETE'),
             ('outbox.dead_letter', 'INSERT'), ('outbox.paused', 'SELECT'), ('outbox.paused_now', 'SELECT'), ('outbox.setting', 'SELECT'),
             ('outbox.relay', 'SELECT'), ('outbox.relay', 'INSERT'), ('outbox.relay', 'UPDATE'), ('outbox.relay', 'DELETE'),
             ('outbox.message_seq', 'SELECT'), ('outbox.message_seq', 'USAGE')) AS need (object, privilege)
WHERE NOT CASE WHEN need.object = 'outbox.message_seq' THEN has_sequence_privilege(need.object, need.privilege)
               ELSE has_table_privilege(need.object, need.privilege) END
UNION ALL
SELECT current_user, 'UPDATE of one column', 'outbox.message' WHERE NOT has_any_column_privilege('outbox.message', 'UPDATE')
