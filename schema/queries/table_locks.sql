-- What settling will need is taken before anything is sent: a lock against writes (CREATE INDEX, ...) must not let us publish in vain.
LOCK TABLE outbox.message, outbox.scheduled IN ROW EXCLUSIVE MODE
