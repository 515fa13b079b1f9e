-- Where the walks of claim_keyed.sql ended, in the same transaction.
SELECT current_setting('outbox.walked', true)
