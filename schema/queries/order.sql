-- What all relays must agree on: is order by key, and in how many lanes?
SELECT bool_or(name = 'order' AND value = 'key'), coalesce(max(value) FILTER (WHERE name = 'lanes'), '0')::int
FROM outbox.setting
