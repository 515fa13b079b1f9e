"""The console blocks of backends/README.md, typed by somebody who has nothing but the installed package, with the output they promise."""
import glob
import os
import re
import subprocess

import psycopg2
import pytest

from harness import DATABASE, HERE, RELAY, clean_environment

README = os.path.join(HERE, "..", "backends", "README.md")


@pytest.fixture
def shop():
    """A database named shop, as in the text."""
    connection = psycopg2.connect(DATABASE + " dbname=postgres")
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE shop")
    yield
    connection.cursor().execute("DROP DATABASE shop WITH (FORCE)")
    connection.close()


def steps():
    """Each command of the console blocks with the lines that it is said to print."""
    with open(README, encoding="utf-8") as text:
        for block in re.findall(r"```console\n(.*?)```", text.read(), re.S):
            for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = step.partition("\n")
                yield command, output


def pattern(output):
    """A line "..." stands for any lines, "..." within a line for anything."""
    lines = [r"(?:.*\n)*?" if line == "..." else ".*".join(re.escape(part) for part in line.split("...")) + r"\n"
             for line in output.splitlines()]
    return "".join(lines)


def test_a_newcomer_gets_what_the_readme_shows(tmp_path, shop):
    os.chmod(tmp_path, 0o755)
    prefix = tmp_path / "prefix"
    subprocess.run(["cmake", "--install", os.path.dirname(RELAY), "--prefix", str(prefix)], check=True, stdout=subprocess.DEVNULL)
    package = glob.glob(f"{prefix}/**/outbox-backend.pc", recursive=True)
    assert len(package) == 1
    fields = dict(field.split("=", 1) for field in DATABASE.split())
    environment = clean_environment(PATH=f"{prefix}/bin:{os.environ['PATH']}", CMAKE_PREFIX_PATH=str(prefix),
                                    PKG_CONFIG_PATH=os.path.dirname(package[0]), PGHOST=fields["host"], PGPORT=fields["port"],
                                    PGUSER=fields["user"])
    empty = tmp_path / "empty"
    empty.mkdir()
    done = list(steps())
    assert len(done) >= 9
    where = str(empty)
    for command, output in done:
        ran = subprocess.run(["bash", "-c", f"{command}\nstatus=$?; pwd >{tmp_path}/where; exit $status"], cwd=where, env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stdout
        assert re.fullmatch(pattern(output), ran.stdout), f"$ {command}\n{ran.stdout}\nis not what the README shows:\n{output}"
        where = (tmp_path / "where").read_text().strip()


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
    assert tested.returncode == 0 and tested.stdout.endswith("backend ABI 1.1: conformant\n"), tested.stdout
    refused = subprocess.run([f"{prefix}/bin/outbox-relay", "backends", "show", str(tmp_path / "plain.so")], capture_output=True, text=True, check=False)
    assert refused.returncode == 78 and "its table is missing or too small" in refused.stderr
