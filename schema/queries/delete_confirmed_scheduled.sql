-- $1 the entries of confirmed retries, all of them locked by this transaction.
DELETE FROM outbox.scheduled WHERE entry = ANY ($1::bigint[])
