-- What in schema outbox is not its owner's, and could act with the rights of who migrates it, writes into it or reads from it; a sentence each. $1: is
-- this user to be the owner?
WITH ours AS (
  SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'outbox'
), tables AS (
  SELECT c.oid, c.relowner, c.relkind FROM pg_class c JOIN ours o ON c.relnamespace = o.oid
), owned AS (
  SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, relowner AS owner FROM tables WHERE relkind <> 'c'
  UNION ALL SELECT 'pg_proc'::regclass, p.oid, p.proowner FROM pg_proc p JOIN ours o ON p.pronamespace = o.oid
  UNION ALL SELECT 'pg_operator'::regclass, p.oid, p.oprowner FROM pg_operator p JOIN ours o ON p.oprnamespace = o.oid
  UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typowner FROM pg_type t JOIN ours o ON t.typnamespace = o.oid
), parts AS (
  SELECT 'pg_constraint'::regclass::oid AS classid, c.oid AS objid FROM pg_constraint c JOIN tables t ON c.conrelid = t.oid
  UNION ALL SELECT 'pg_attrdef'::regclass, d.oid FROM pg_attrdef d JOIN tables t ON d.adrelid = t.oid
  UNION ALL SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN tables t ON g.tgrelid = t.oid
  UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN tables t ON r.ev_class = t.oid
  UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p JOIN tables t ON p.polrelid = t.oid
  UNION ALL SELECT 'pg_class'::regclass, t.oid FROM tables t
), used AS (
  SELECT d.classid, d.objid, d.refobjid AS function FROM pg_depend d JOIN parts USING (classid, objid) WHERE d.refclassid = 'pg_proc'::regclass
  UNION
  SELECT d.classid, d.objid, p.oprcode::oid FROM pg_depend d JOIN parts USING (classid, objid) JOIN pg_operator p ON p.oid = d.refobjid
  WHERE d.refclassid = 'pg_operator'::regclass
)
SELECT format('it belongs to %s: run this as that user, or, after a look at what is in it, ALTER SCHEMA outbox OWNER TO %I', pg_get_userbyid(nspowner), current_user)
FROM ours WHERE $1::boolean AND pg_get_userbyid(nspowner) <> current_user
UNION ALL
SELECT format('%s belongs to %s, and the schema to %s', pg_describe_object(classid, objid, 0), pg_get_userbyid(w.owner), pg_get_userbyid(o.nspowner))
FROM owned w CROSS JOIN ours o WHERE w.owner <> o.nspowner
UNION ALL
SELECT format('%s uses function %s of user %s', pg_describe_object(u.classid, u.objid, 0), p.oid::regprocedure, pg_get_userbyid(p.proowner))
FROM used u JOIN pg_proc p ON p.oid = u.function CROSS JOIN ours o
WHERE p.proowner <> o.nspowner AND p.pronamespace <> 'pg_catalog'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = p.proowner AND rolsuper)
