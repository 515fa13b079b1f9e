-- $1 the confirmed rows of the batch, all of them locked by this transaction.
DELETE FROM outbox.message WHERE seq = ANY ($1::bigint[])
