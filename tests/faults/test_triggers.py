"""Other people's triggers and constraints on the outbox's tables: no row goes because one did not arrive, and one row keeps no other."""
import collections
import uuid

import pytest

from harness import relay, wait_until
from receiver import Answer

GUARD = ("CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
         " IF current_setting('app.tenant', true) IS NULL THEN RETURN NULL; END IF; RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$")


def guarded(database, table, event="INSERT"):
    """A guard that lets nothing pass without a tenant, as a BEFORE trigger may: without a word."""
    database.run(GUARD)
    database.run(f"CREATE TRIGGER guard BEFORE {event} ON outbox.{table} FOR EACH ROW EXECUTE FUNCTION public.guard()")


def everywhere(database):
    return database.value("SELECT (SELECT count(*) FROM outbox.message) + (SELECT count(*) FROM outbox.scheduled) + (SELECT count(*) FROM outbox.dead_letter)")


def drain(database, *options, timeout=60):
    arguments = ["-d", database.conninfo]
    for option in ("drain.patience=0", "poll.max=200ms", *options):
        arguments += ["-o", option]
    return relay("drain", "-q", *arguments, timeout=timeout)


# ---- what does not arrive does not leave ----


@pytest.mark.parametrize("table, script", [("scheduled", "retry"), ("dead_letter", "reject")])
def test_a_row_that_is_kept_out_of_where_it_is_set_aside_stays_where_it_was(database, table, script):
    guarded(database, table)
    database.fill(2)
    database.run("INSERT INTO outbox.message (channel, type, headers) VALUES ('orders', 't', jsonb_build_object('fail', %s::text))", script)
    done = drain(database, "backend=fail", "fail.script=confirm", "workers=1")
    assert done.returncode == 78 and "stay where they are" in done.stderr and everywhere(database) == 1, done.stderr
    assert "1 of 1 rows did not arrive where they were to be set aside: does a trigger" in done.stderr, done.stderr


def test_a_delayed_message_that_is_kept_out_of_the_outbox_waits_and_keeps_no_other(database):
    database.run("SELECT outbox.publish('late', 't', '{}', delay => interval '0')")
    guarded(database, "message")
    database.run("SET app.tenant = 'x'; INSERT INTO outbox.message (channel, type) SELECT 'a', 't' FROM generate_series(1, 20)")
    done = drain(database, "backend=null")
    assert done.returncode == 78 and "delayed messages that are due cannot enter outbox.message" in done.stderr and "keeps rows out of outbox.message" in done.stderr
    assert everywhere(database) == 1 and database.left() == 0


def test_a_dead_letter_that_cannot_be_retried_stays_one(database):
    database.fill(1)
    assert drain(database, "backend=fail", "fail.script=reject").returncode == 1
    guarded(database, "scheduled")
    done = relay("dead", "retry", "--all", "-d", database.conninfo)
    assert done.returncode != 0 and "keeps rows out of outbox.scheduled" in done.stderr, done.stderr
    assert everywhere(database) == 1


# ---- what does not leave is not sent at full speed ----


@pytest.mark.parametrize("table, event, script", [("message", "DELETE", "reject"), ("scheduled", "UPDATE", "retry")])
def test_a_row_that_a_trigger_keeps_in_its_place_is_told_and_is_not_sent_again_at_once(database, start, table, event, script):
    database.fill(20 if table == "message" else 1)
    if table == "scheduled":
        database.fill(1)  # evidence that the channel works
        assert drain(database, "backend=fail", "fail.script=retry,confirm", "workers=1").returncode == 1
    guarded(database, table, event)
    running = start("-d", database.conninfo, "-b", "fail", "-o", f"fail.script={script}", "-o", "retry.backoff_min=10ms", "-o", "workers=1")
    running.await_log("rows could not be set aside and stay where they are")
    status = wait_until(lambda: (lambda out: out if out.startswith("BLOCKED") else None)(relay("status", "-d", database.conninfo).stdout), what="BLOCKED")
    assert "stay where they are" in status
    before = running.log().count("rows could not be set aside")
    running.await_log("rows could not be set aside", 5)
    assert "set aside as dead letters" not in running.log() and before < 10
    done = drain(database, "backend=fail", f"fail.script={script}")
    assert done.returncode == 78, done.stderr


# ---- one row keeps no other ----


def test_one_row_that_cannot_become_a_dead_letter_keeps_no_other(database, receiver):
    """A trigger with pg_notify() and a payload beyond its 8,000 bytes, among others that the receiver refuses as well."""
    database.run("CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('dead', NEW.payload::text); RETURN NEW; END $$")
    database.run("CREATE TRIGGER tell AFTER INSERT ON outbox.dead_letter FOR EACH ROW EXECUTE FUNCTION public.tell()")
    database.run("SELECT outbox.publish('bad', 't', json_build_object('x', repeat('y', CASE i WHEN 4 THEN 9000 ELSE 9 END))) FROM generate_series(1, 10) i")
    database.run("SELECT outbox.publish('good', 't', '{}') FROM generate_series(1, 50)")
    receiver.answer = lambda request: Answer(400 if "/bad" in request.path else 200)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "http", "-o", f"http.url={receiver.url}", "-o", "poll.max=200ms")
    assert done.returncode == 78 and "payload string too long" in done.stderr and "messages that are to be set aside stay where they are" in done.stderr, done.stderr
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 9 and database.left() == 1, "all the others went before the drain gave up"
    sent = collections.Counter(request.headers["webhook-id"] for request in receiver.requests)
    assert len(sent) == 60 and sorted(sent.values())[-2] <= 3, sent.most_common(3)


def test_one_delayed_message_that_cannot_enter_the_outbox_keeps_neither_retries_nor_messages(database, start):
    database.run("SELECT outbox.publish('late', 't', '{}', delay => interval '0')")
    database.run("CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.channel = 'late' THEN RAISE 'not here'; END IF; RETURN NEW; END $$")
    database.run("CREATE TRIGGER no BEFORE INSERT ON outbox.message FOR EACH ROW EXECUTE FUNCTION public.no()")
    database.fill(100)
    running = start("-d", database.conninfo, "-b", "fail", "-o", "fail.script=retry,confirm,confirm", "-o", "retry.backoff_min=50ms", "-o", "workers=1")
    running.await_log("delayed messages that are due cannot enter outbox.message and wait")
    wait_until(lambda: everywhere(database) == 1, 30, "all but the delayed one")
    assert "not here" in running.log()
    wait_until(lambda: "delayed messages that are due cannot enter outbox.message" in relay("status", "-d", database.conninfo).stdout, what="status says so")
    database.run("DROP TRIGGER no ON outbox.message")
    wait_until(lambda: everywhere(database) == 0, 70, "the delayed one")


REFUSALS = {
    "a foreign key": "CREATE TABLE public.sent (seq bigint REFERENCES outbox.message (seq)); INSERT INTO public.sent SELECT seq FROM outbox.message WHERE channel = 'bad'",
    "a deferred foreign key": "CREATE TABLE public.sent (seq bigint REFERENCES outbox.message (seq) DEFERRABLE INITIALLY DEFERRED);"
                              " INSERT INTO public.sent SELECT seq FROM outbox.message WHERE channel = 'bad'",
    "a trigger that raises": "CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never delete'; END $$;"
                             " CREATE TRIGGER no BEFORE DELETE ON outbox.message FOR EACH ROW WHEN (OLD.channel = 'bad') EXECUTE FUNCTION public.no()",
    "an audit table without a grant": "CREATE TABLE public.audit (seq bigint); CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS"
                                      " $$ BEGIN INSERT INTO public.audit VALUES (OLD.seq); RETURN OLD; END $$;"
                                      " CREATE TRIGGER note BEFORE DELETE ON outbox.message FOR EACH ROW WHEN (OLD.channel = 'bad') EXECUTE FUNCTION public.note()",
}


@pytest.fixture
def relays_user(database):
    """A user of role outbox_relay and no other right."""
    role = "r_" + uuid.uuid4().hex[:10]
    database.run(f"CREATE ROLE {role} LOGIN IN ROLE outbox_relay")
    yield database.conninfo.replace("user=postgres", "user=" + role)
    database.run(f"DROP ROLE {role}")


def test_many_confirmed_rows_that_cannot_be_deleted_keep_no_other(database):
    """More than are looked for one by one, in front of those that can: each batch has all of them."""
    database.run("INSERT INTO outbox.message (channel, type) SELECT CASE WHEN i <= 100 THEN 'bad' ELSE 'good' END, 't' FROM generate_series(1, 300) i")
    database.run(REFUSALS["a foreign key"])
    done = drain(database, "backend=null", "workers=1")
    assert done.returncode == 78 and "confirmed messages stay in the outbox" in done.stderr, done.stderr
    assert database.run("SELECT channel, count(*) FROM outbox.message GROUP BY channel") == [("bad", 100)]


def test_a_dead_letter_that_is_refused_at_commit_is_found_and_its_batch_is_sent_twice_at_most(database, receiver):
    """By a deferred constraint."""
    database.run("CREATE FUNCTION public.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no dead letters'; END $$")
    database.run("CREATE CONSTRAINT TRIGGER no AFTER INSERT ON outbox.dead_letter DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.no()")
    database.run("SELECT outbox.publish(CASE i WHEN 5 THEN 'bad' ELSE 'good' END, 't', '{}') FROM generate_series(1, 50) i")
    receiver.answer = lambda request: Answer(400 if "/bad" in request.path else 200)
    done = relay("drain", "-q", "-d", database.conninfo, "-b", "http", "-o", f"http.url={receiver.url}", "-o", "poll.max=200ms", "-o", "workers=1")
    assert done.returncode == 78 and "no dead letters" in done.stderr and database.left() == 1, done.stderr
    sent = collections.Counter(request.headers["webhook-id"] for request in receiver.requests)
    assert sorted(sent.values())[-2] == 2, sent.most_common(3)


def test_a_lane_of_which_nothing_goes_is_not_taken_again_and_again_in_place_of_the_next(database):
    """Of 64 lanes two have rows, one right behind the other: from nearly every beginning the first one is met first, and its row cannot be deleted."""
    assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "64").returncode == 0
    lane = "(hashtextextended('{}', 0) # hashtextextended(i::text, 0)) & 63"
    database.run(f"INSERT INTO outbox.message (channel, type, key) (SELECT 'bad', 't', i::text FROM generate_series(1, 10000) i WHERE {lane.format('bad')} = 20 LIMIT 1)")
    database.run(f"INSERT INTO outbox.message (channel, type, key) (SELECT 'good', 't', i::text FROM generate_series(1, 10000) i WHERE {lane.format('good')} = 21 LIMIT 1)")
    database.run(REFUSALS["a foreign key"])
    done = drain(database, "backend=null", "order=key", "workers=1", "poll.max=500ms", "batch.max_messages=1")
    assert done.returncode == 78 and database.run("SELECT channel FROM outbox.message") == [("bad",)], done.stderr


@pytest.mark.parametrize("mode", ["none", "key"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_one_confirmed_row_that_cannot_be_deleted_keeps_no_other(database, relays_user, receiver, refusal, mode):
    if mode == "key":
        assert relay("migrate", "-d", database.conninfo, "--order", "key", "--lanes", "8").returncode == 0
    database.run("INSERT INTO outbox.message (channel, type, key, payload) SELECT CASE i WHEN 40 THEN 'bad' ELSE 'good' END, 't', (i % 30)::text, '{}' FROM generate_series(1, 300) i")
    database.run(REFUSALS[refusal])
    done = relay("drain", "-q", "-d", relays_user, "-b", "http", "-o", f"http.url={receiver.url}", "-o", "poll.max=200ms", "-o", "drain.patience=0", "-o", f"order={mode}")
    assert done.returncode == 78 and "confirmed messages stay in the outbox" in done.stderr, done.stderr
    assert "confirmed rows could not be deleted, and will be sent again" in done.stderr, done.stderr
    assert database.left() == 1 and database.value("SELECT channel FROM outbox.message") == "bad"
    sent = collections.Counter(request.headers["webhook-id"] for request in receiver.requests)
    assert len(sent) == 300 and sorted(sent.values())[-2] <= 3, sent.most_common(3)
    if "grant" in refusal:
        assert "permission denied for table audit (SQLSTATE 42501) in function public.note()" in done.stderr and "GRANT outbox_relay" not in done.stderr, "it is not ours that lacks a grant"
