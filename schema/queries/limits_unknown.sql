-- A limit of time that role or database puts on this session, that could end a transaction of ours, and that we know no way to set: one of a server
-- that is newer than we are. What only the server's own configuration may set is about the server, such as its replication slots; a name with a
-- dot is an extension's. $1: those that we set, as text[]. No row = none.
SELECT name, setting FROM pg_catalog.pg_settings
WHERE name ~ '^([a-z_]+_)?(statement|transaction|lock|session|query|idle)_([a-z_]+_)?timeout$' AND context IN ('user', 'superuser')
  AND setting !~ '^(-.*|0)$' AND name <> ALL ($1::text[])
ORDER BY name LIMIT 1
