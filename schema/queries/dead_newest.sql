-- The newest dead letter: what dies while others are sent again is not of this round.
SELECT coalesce(max(entry), 0) FROM outbox.dead_letter
