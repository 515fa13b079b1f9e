"""An old snapshot keeps the rows that were delivered: what a claim costs must not grow with them. Pages are counted, not seconds."""
import os
import time

import pytest

from harness import Database, relay, wait_until

ROWS = int(os.environ.get("TEST_HORIZON_ROWS", "20000"))
BATCH = 100
QUIET = 2.5  # seconds


@pytest.fixture
def pinned():
    """A database in which VACUUM can remove nothing."""
    database = Database()
    snapshot = database.connect(autocommit=False)
    snapshot.set_session(isolation_level="REPEATABLE READ")
    snapshot.cursor().execute("SELECT 1")  # takes the snapshot, and no lock on any table
    yield database
    snapshot.close()
    database.drop()


def settled_pages(database):
    """Pages of outbox.message touched so far, once the relay, idle, has told all of its own (it does at most once a second)."""
    seen = []  # (when, pages)

    def look():
        pages = database.value("SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read FROM pg_statio_all_tables"
                               " WHERE relid = 'outbox.message'::regclass")
        seen.append((time.monotonic(), pages))
        quiet = [count for at, count in seen if at > seen[-1][0] - QUIET]
        return seen[0][0] < seen[-1][0] - QUIET and max(quiet) - min(quiet) < 200

    wait_until(look, 20, "quiet statistics")
    return seen[-1][1]


def fill(database, count):
    database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT 'orders', 't', (i %% 100)::text, '{}' FROM generate_series(1, %s) i",
                 count)


@pytest.mark.parametrize("mode", ["none", "key"])
def test_a_claim_behind_dead_rows_that_an_old_snapshot_keeps_does_not_walk_through_them(pinned, start, mode):
    """The null backend confirms all, so the dead rows are there at once; then a few rows more of the same 100 keys."""
    assert relay("migrate", "-d", pinned.conninfo, "--order", mode, *(["--lanes", "16"] if mode == "key" else [])).returncode == 0
    pinned.run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    fill(pinned, ROWS)
    start("-d", pinned.conninfo, "-b", "null", "-o", "order=" + mode, "-o", "workers=1", "-o", f"batch.max_messages={BATCH}", "-o", "poll.max=200ms")
    wait_until(lambda: pinned.left() == 0, 300, "an empty outbox")
    fill(pinned, BATCH)  # the mark passes the last of the dead rows
    wait_until(lambda: pinned.left() == 0, what="an empty outbox")
    before = settled_pages(pinned)
    fill(pinned, 5 * BATCH)
    wait_until(lambda: pinned.left() == 0, what="an empty outbox")
    pages = settled_pages(pinned) - before
    dead = pinned.value("SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'outbox.message'::regclass")
    print(f"{pages / 5:.0f} pages per claim of {BATCH} rows, {dead} dead rows in front")
    assert dead >= ROWS, "nothing must have been removed, or the test proves nothing"
    assert pages / 5 <= ROWS / 2, "the dead rows were walked through"


def test_the_last_fifth_of_many_deletes_under_an_old_snapshot_touches_no_more_pages_than_the_first(pinned, start):
    """Scenario 28, order: none, one process from the first message to the last."""
    pinned.run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    start("-d", pinned.conninfo, "-b", "null", "-o", "workers=1", "-o", "poll.max=200ms")
    costs = []
    before = settled_pages(pinned)
    for fifth in range(5):
        fill(pinned, ROWS // 5)
        wait_until(lambda: pinned.left() == 0, 600, "an empty outbox")
        if fifth in (0, 3, 4):  # statistics take their time
            after = settled_pages(pinned)
            costs.append((after - before) / (ROWS // 5))
            before = after
    print(f"pages per message, of {ROWS}: {costs[0]:.2f} in the first fifth, {costs[2]:.2f} in the last")
    assert costs[2] <= 1.5 * costs[0]


@pytest.mark.parametrize("mode", ["none", "key"])
def test_statistics_from_before_do_not_lead_claims_away_from_their_index(database, start, mode):
    """The planner knows the rows of a minute ago, and believes that there are next to none behind them, where all are now."""
    assert relay("migrate", "-d", database.conninfo, "--order", mode).returncode == 0
    database.run("ALTER TABLE outbox.message SET (autovacuum_enabled = off)")
    fill(database, ROWS)
    database.run("DELETE FROM outbox.message WHERE seq % 8 > 0")
    database.run("VACUUM ANALYZE outbox.message")
    start("-d", database.conninfo, "-b", "null", "-o", "order=" + mode, "-o", "workers=1", "-o", f"batch.max_messages={BATCH}", "-o", "poll.max=1s")
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    fill(database, BATCH)  # the mark passes all that the statistics tell of
    wait_until(lambda: database.left() == 0, what="an empty outbox")
    before = settled_pages(database)
    fill(database, ROWS // 2)
    wait_until(lambda: database.left() == 0, 300, what="an empty outbox")
    pages = (settled_pages(database) - before) / (ROWS // 2)
    print(f"{pages:.0f} pages per message")
    assert pages <= 45, "each step of a claim reads all that waits"
