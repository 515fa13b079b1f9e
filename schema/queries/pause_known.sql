-- Does a pause ($1 its scope) concern a message that is here? And which pauses are in force?
SELECT EXISTS (SELECT FROM outbox.message m JOIN outbox.paused_now p ON m.channel = p.scope OR m.channel LIKE p.pattern WHERE p.scope = $1)
    OR EXISTS (SELECT FROM outbox.scheduled m JOIN outbox.paused_now p ON m.channel = p.scope OR m.channel LIKE p.pattern WHERE p.scope = $1)
    OR EXISTS (SELECT FROM outbox.dead_letter m JOIN outbox.paused_now p ON m.channel = p.scope OR m.channel LIKE p.pattern WHERE p.scope = $1),
       (SELECT string_agg(CASE scope WHEN '*' THEN 'all channels' ELSE scope END, ', ' ORDER BY scope) FROM (SELECT scope FROM outbox.paused_now ORDER BY scope LIMIT 20) p)
