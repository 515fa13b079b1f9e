-- One unlocked look of an idle worker: is anything waiting, in outbox.message from $1 on, or due in outbox.scheduled?
-- $2 resting or paused channels, $3 included, $4 excluded patterns.
SELECT EXISTS (SELECT FROM outbox.message WHERE seq >= $1::bigint AND channel <> ALL ($2::text[])
                 AND ($3::text[] IS NULL OR channel LIKE ANY ($3::text[])) AND ($4::text[] IS NULL OR NOT channel LIKE ANY ($4::text[]))),
       EXISTS (SELECT FROM outbox.scheduled WHERE due_at <= clock_timestamp() AND (seq IS NULL OR channel <> ALL ($2::text[]))
                 AND ($3::text[] IS NULL OR channel LIKE ANY ($3::text[])) AND ($4::text[] IS NULL OR NOT channel LIKE ANY ($4::text[])))
