-- Second half, later in the same transaction: our own xid, the horizon, and the first live rows up to an earlier `highest`, read
-- without locks. $1 mark so far, $2 mark so far for claims without the channels $4 (resting) and $7 (paused when last seen), $3 the
-- earlier highest, $5 included and $6 excluded channel patterns, $8 whether only rows without a key count for that, $9 paused patterns,
-- $10 names of channels: these alone (NULL = all).
SELECT pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
       (SELECT seq FROM outbox.message WHERE seq >= $1::bigint AND seq <= $3::bigint ORDER BY seq LIMIT 1),
       (SELECT seq FROM outbox.message WHERE seq >= $2::bigint AND seq <= $3::bigint AND channel NOT IN (SELECT unnest($4::text[] || $7::text[])) AND NOT channel LIKE ANY ($9::text[])
          AND (NOT $8::boolean OR key IS NULL)
          AND ($5::text[] IS NULL OR channel LIKE ANY ($5::text[])) AND ($6::text[] IS NULL OR NOT channel LIKE ANY ($6::text[]))
          AND ($10::text[] IS NULL OR channel IN (SELECT unnest($10::text[])))
        ORDER BY seq LIMIT 1)
