-- Who may act as one of our roles, but for superusers and this user; a sentence for each role that somebody may. Roles are the server's: who may so in one
-- of its databases may so in all that he may connect to.
WITH known (name, does) AS (
  VALUES ('outbox_relay', 'read and delete all messages'), ('outbox_producer', 'publish'), ('outbox_consumer', 'mark messages as processed')
), members AS (
  SELECT k.name, k.does, m.rolname AS member, m.oid = r.oid AS itself,
    m.oid <> r.oid AND pg_has_role(m.oid, r.oid, 'MEMBER WITH ADMIN OPTION') AS lets_in, row_number() OVER (PARTITION BY k.name ORDER BY m.rolname) AS place
  FROM known k JOIN pg_roles r ON r.rolname = k.name JOIN pg_roles m ON pg_has_role(m.oid, r.oid, 'MEMBER')
  WHERE m.rolcanlogin AND NOT m.rolsuper AND m.rolname <> current_user
)
SELECT format('who may %s, by role %s: %s%s', does, name,
    string_agg(format('%I%s', member, CASE WHEN lets_in THEN ' (and let others in)' WHEN itself THEN ' (it may log in)' ELSE '' END), ', ' ORDER BY place) FILTER (WHERE place <= 10),
    CASE WHEN count(*) > 10 THEN ' and ' || count(*) - 10 || ' more' ELSE '' END)
FROM members GROUP BY name, does ORDER BY name DESC
