"""The fail backend does what its script says: for those who test what they built around the relay, and for us."""
import json

import jsonschema
import pytest
import yaml

from harness import relay, wait_until


def drain(database, *options):
    arguments = ["drain", "-q", "--json", "-d", database.conninfo, "-b", "fail", "-o", "drain.unavailable_after=1s", "-o", "workers=1"]
    for option in options:
        arguments += ["-o", option]
    done = relay(*arguments)
    return done, json.loads(done.stdout) if done.stdout else None


def test_the_script_is_followed_message_by_message(database):
    database.fill(6)
    done, summary = drain(database, "fail.script=confirm,reject,retry", "retry.backoff_min=1h", "retry.backoff_max=1h")
    assert done.returncode == 1 and (summary["published"], summary["dead_lettered"]) == (2, 2), done.stdout
    assert database.value("SELECT count(*) FROM outbox.scheduled WHERE attempts = 1") == 2
    assert database.run("SELECT DISTINCT last_error FROM outbox.dead_letter") == [("the script of backend fail says so",)]


def test_a_header_says_it_for_one_message(database):
    database.run("SELECT outbox.publish('a', 't', '{}', headers => '{\"fail\": \"reject\"}')")
    database.fill(2)
    done, summary = drain(database)
    assert done.returncode == 1 and (summary["published"], summary["dead_lettered"]) == (2, 1), done.stdout


def test_a_hold_rests_the_channel_for_as_long_as_it_says(database, start):
    database.fill(1)
    start("-d", database.conninfo, "-b", "fail", "-o", "fail.script=hold", "-o", "fail.retry_after=1h")
    held = wait_until(lambda: [hold for one in json.loads(relay("status", "--json", "-d", database.conninfo).stdout)["relays"]
                               for hold in one["holds"]], what="a hold")
    assert 3000 < held[0]["next_try_in_s"] <= 3600 and database.left() == 1


def test_what_was_not_sent_stays_without_attempt_and_without_a_possible_duplicate(database):
    database.fill(4)
    done, summary = drain(database, "fail.script=confirm,unsettled")
    assert done.returncode == 0 and (summary["published"], summary["possible_duplicates"]) == (4, 0), done.stdout


@pytest.mark.parametrize("connect, code", [("unavailable", 69), ("refused", 77), ("config", 78)])
def test_a_connect_that_fails_ends_a_drain_with_its_own_exit_code(database, connect, code):
    database.fill(1)
    done, _ = drain(database, "fail.connect=" + connect)
    assert done.returncode == code and database.left() == 1, done.stdout


def test_a_word_that_is_none_is_refused(database):
    done, _ = drain(database, "fail.script=confirm,vanish")
    assert done.returncode == 78 and "fail.script: 'vanish' is none of confirm, hold, retry" in done.stdout


def test_the_configurations_schema_is_one_and_takes_the_sample(tmp_path):
    schema = json.loads(relay("config", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    file = tmp_path / "sample.yaml"
    for backend in ("amqp", "http", "fail"):
        sample = relay("config", "init", "-b", backend, "-o", "http.url=https://example.com/").stdout
        file.write_text(sample)
        again = relay("config", "show", "-c", str(file), "-b", backend, "-o", "http.url=https://example.com/")
        assert again.returncode == 0, again.stderr
        validator.validate({key: value for key, value in yaml.safe_load(sample).items() if value is not None})
    for bad in ({"workers": 0}, {"batch": {"max_message": 1}}, {"poll": {"min": "soon"}}, {"backends": "amqp"}, {"amqp": {"declare": "maybe"}}):
        assert not validator.is_valid(bad), bad
