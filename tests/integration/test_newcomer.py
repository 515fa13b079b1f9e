"""The console blocks of README.md and backends/README.md, typed by somebody who has nothing but a checkout and the installed package, with the
output that they promise."""
import glob
import os
import re
import subprocess

import psycopg2
import pytest

from harness import DATABASE, HERE, RELAY, clean_environment

ROOT = os.path.abspath(os.path.join(HERE, ".."))


@pytest.fixture
def no_shop():
    """No database named shop, as both texts begin; what is made of it goes."""
    yield
    connection = psycopg2.connect(DATABASE + " dbname=postgres")
    connection.autocommit = True
    connection.cursor().execute("DROP DATABASE IF EXISTS shop WITH (FORCE)")
    connection.close()


def steps(readme):
    """Each command of the console blocks with the lines that it is said to print."""
    with open(os.path.join(ROOT, readme), encoding="utf-8") as text:
        for block in re.findall(r"```console\n(.*?)```", text.read(), re.S):
            for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = step.partition("\n")
                yield command, output


UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def pattern(output):
    """A line "..." stands for any lines, "..." within a line for anything, an id for any other."""
    def line_pattern(line):
        parts = [".*".join(re.escape(piece) for piece in part.split("...")) for part in re.split(UUID, line)]
        return UUID.join(parts) + r"\n"

    return "".join(r"(?:.*\n)*?" if line == "..." else line_pattern(line) for line in output.splitlines())


@pytest.fixture
def installed(tmp_path):
    """The environment of somebody with the installed package, and a database server at hand."""
    os.chmod(tmp_path, 0o755)
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", os.path.dirname(RELAY), "--prefix", str(prefix)], check=True, stdout=subprocess.DEVNULL)
    package = glob.glob(f"{prefix}/**/outbox-backend.pc", recursive=True)
    assert len(package) == 1
    fields = dict(field.split("=", 1) for field in DATABASE.split())
    return clean_environment(PATH=f"{prefix}/bin:{os.environ['PATH']}", CMAKE_PREFIX_PATH=str(prefix), PKG_CONFIG_PATH=os.path.dirname(package[0]),
                             PGHOST=fields["host"], PGPORT=fields["port"], PGUSER=fields["user"],
                             PGPASSFILE=fields["passfile"])


def type_all(tmp_path, where, environment, commands):
    for command, output in commands:
        ran = subprocess.run(["bash", "-c", f"{command}\nstatus=$?; pwd >{tmp_path}/where; exit $status"], cwd=where, env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stdout
        assert re.fullmatch(pattern(output), ran.stdout), f"$ {command}\n{ran.stdout}\nis not what the README shows:\n{output}"
        where = (tmp_path / "where").read_text().strip()


def test_an_author_of_a_backend_gets_what_the_readme_shows(tmp_path, no_shop, installed):
    port = os.environ["TEST_MQTT_PORT"]
    commands = [(command.replace("1883", port), output) for command, output in steps("backends/README.md")]
    assert len(commands) >= 16 and sum(port in command for command, _ in commands) == 4
    empty = tmp_path / "empty"
    empty.mkdir()
    type_all(tmp_path, empty, installed, commands)


def test_a_newcomer_gets_what_the_readme_shows(tmp_path, no_shop, installed):
    """In a copy of the checkout: scripts/demo builds there, with servers of its own. scripts/test is what runs this."""
    commands = list(steps("README.md"))
    assert [command for command, _ in commands][:3] == ["scripts/demo", "scripts/test", "createdb shop"] and len(commands) >= 6
    copy = tmp_path / "checkout"
    copy.mkdir()
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["cp", "-P", "--parents", "--preserve=mode,timestamps", "-t", str(copy), *files.stdout.decode().rstrip("\0").split("\0")],
                   cwd=ROOT, check=True)
    type_all(tmp_path, copy, installed, [(command, output) for command, output in commands if command != "scripts/test"])


def test_the_readme_shows_the_end_of_the_suite_as_it_is_printed():
    shown = dict(steps("README.md"))["scripts/test"].splitlines()
    with open(os.path.join(ROOT, "scripts", "test"), encoding="utf-8") as script:
        said = re.search(r'^echo "(test: .*)"$', script.read(), re.M)[1]
    assert shown[-1] == said.replace("$((SECONDS - began))", "...").replace("${#flaky[@]}", "0")
    assert re.fullmatch(r"100% tests passed, 0 tests failed out of \.\.\.", shown[1])


def test_the_installed_package_builds_the_sample_as_c_and_the_header_as_cpp(tmp_path):
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", os.path.dirname(RELAY), "--prefix", str(prefix)], check=True, stdout=subprocess.DEVNULL)
    include = f"{prefix}/include"
    sample = os.path.join(HERE, "plugin_sample", "sample.c")
    subprocess.run(["cc", "-std=c11", "-D_DEFAULT_SOURCE", "-shared", "-fPIC", "-I", include, sample, "-o", str(tmp_path / "sample.so")], check=True)
    source = tmp_path / "plain.cc"
    source.write_text('#include <outbox_backend.h>\nstatic const struct outbox_backend table = {};\nOUTBOX_BACKEND("plain", "1", table);\n')
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-I", include, str(source),
                    "-o", str(tmp_path / "plain.so")], check=True)
    os.chmod(tmp_path, 0o755)
    shown = subprocess.run([f"{prefix}/bin/outbox-relay", "backends", "show", str(tmp_path / "sample.so")], capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and "sample 1.0.0" in shown.stdout, shown.stderr
    address = "address=127.0.0.1:" + os.environ["TEST_REDIS_PORT"]
    tested = subprocess.run([f"{prefix}/bin/outbox-relay", "backends", "test", str(tmp_path / "sample.so"), "-o", address, "--proxy", "address"],
                            capture_output=True, text=True, timeout=300, check=False)
    assert tested.returncode == 0 and tested.stdout.endswith("backend ABI 1.4: conformant\n"), tested.stdout
    refused = subprocess.run([f"{prefix}/bin/outbox-relay", "backends", "show", str(tmp_path / "plain.so")], capture_output=True, text=True, check=False)
    assert refused.returncode == 78 and "its table is missing or too small" in refused.stderr
