-- One unlocked look of an idle worker: the first row that waits in outbox.message from $1 on, and is anything due in outbox.scheduled?
-- $2 resting channels, $3 included, $4 excluded patterns.
WITH barred AS MATERIALIZED (
  SELECT unnest($2::text[]) AS channel UNION ALL SELECT scope FROM outbox.paused_now WHERE pattern IS NULL
), patterns AS MATERIALIZED (
  SELECT ARRAY(SELECT pattern FROM outbox.paused_now WHERE pattern IS NOT NULL) AS paused
)
SELECT (SELECT seq FROM outbox.message
        WHERE seq >= $1::bigint AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
          AND ($3::text[] IS NULL OR channel LIKE ANY ($3::text[])) AND ($4::text[] IS NULL OR NOT channel LIKE ANY ($4::text[]))
        ORDER BY seq LIMIT 1),
       coalesce((SELECT true FROM outbox.scheduled WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NULL
          AND ($3::text[] IS NULL OR channel LIKE ANY ($3::text[])) AND ($4::text[] IS NULL OR NOT channel LIKE ANY ($4::text[]))
        ORDER BY due_at, entry LIMIT 1),
        (SELECT true FROM outbox.scheduled WHERE due_at <= (SELECT clock_timestamp()) AND seq IS NOT NULL
          AND channel NOT IN (SELECT channel FROM barred) AND NOT channel LIKE ANY ((SELECT paused FROM patterns)::text[])
    AND NOT EXISTS (SELECT FROM outbox.paused_now WHERE scope = '*')
          AND ($3::text[] IS NULL OR channel LIKE ANY ($3::text[])) AND ($4::text[] IS NULL OR NOT channel LIKE ANY ($4::text[]))
        ORDER BY due_at, entry LIMIT 1), false)
