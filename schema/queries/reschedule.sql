-- Further failures of rows that already wait. $1 entries, $2 waits in ms, $3 attempts, $4 solo, $5 errors, of one length.
UPDATE outbox.scheduled s
SET due_at = least(clock_timestamp() + f.wait_ms * interval '1 millisecond', s.expires_at), attempts = f.attempts, tried_at = clock_timestamp(),
    solo = f.solo, last_error = f.error
FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::boolean[], $5::text[]) AS f(entry, wait_ms, attempts, solo, error)
WHERE s.entry = f.entry
