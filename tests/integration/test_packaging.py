"""What "cmake --install --prefix" puts where, of a build that was configured for another prefix: the relay, pkg-config and CMake agree."""
import glob
import os
import re
import subprocess

import pytest

from harness import RELAY, clean_environment


@pytest.fixture
def prefix(tmp_path):
    os.chmod(tmp_path, 0o755)
    subprocess.run(["cmake", "--install", os.path.dirname(RELAY), "--prefix", str(tmp_path / "prefix")], check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "prefix"


def environment(prefix):
    package, = glob.glob(f"{prefix}/**/outbox-backend.pc", recursive=True)
    return clean_environment(PATH=f"{prefix}/bin:{os.environ['PATH']}", CMAKE_PREFIX_PATH=str(prefix), PKG_CONFIG_PATH=os.path.dirname(package))


def run(prefix, *command, cwd="/"):
    done = subprocess.run(command, cwd=cwd, env=environment(prefix), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def looked_for(prefix):
    return run(prefix, "outbox-relay", "backends", "list").rsplit("looked for in ", 1)[1].split(";")[0]


def install_a_plugin(prefix, tmp_path):
    run(prefix, "outbox-relay", "backends", "new", "demo", cwd=tmp_path)
    for command in (["cmake", "-B", "build"], ["cmake", "--build", "build"], ["cmake", "--install", "build"]):
        run(prefix, *command, cwd=tmp_path / "demo")


def test_a_plugin_is_installed_to_where_the_relay_looks_for_it(prefix, tmp_path):
    directory = looked_for(prefix)
    assert directory.startswith(f"{prefix}/")
    assert os.path.realpath(run(prefix, "pkg-config", "--variable=backend_directory", "outbox-backend").strip()) == directory
    install_a_plugin(prefix, tmp_path)
    assert os.path.exists(f"{directory}/demo.so")
    assert f"demo         0.1.0      {directory}/demo.so" in run(prefix, "outbox-relay", "backends", "list")
    assert "demo 0.1.0" in run(prefix, "outbox-relay", "backends", "show", "demo")
    file = tmp_path / "relay.yaml"
    file.write_text("database: dbname=x\nbackend: demo\ndemo: { path: /tmp/lines }\n")
    for backend in ("demo", "stdout"):  # its section does not stand in the way of another
        assert "configuration: ok" in run(prefix, "outbox-relay", "check", "-c", str(file), "-b", backend)


def test_a_package_that_was_unpacked_elsewhere_takes_its_plugins_along(prefix, tmp_path):
    install_a_plugin(prefix, tmp_path)
    moved = tmp_path / "moved"
    os.rename(prefix, moved)
    assert looked_for(moved).startswith(f"{moved}/")
    assert "demo 0.1.0" in run(moved, "outbox-relay", "backends", "show", "demo")
    assert os.path.realpath(run(moved, "pkg-config", "--variable=backend_directory", "outbox-backend").strip()) == looked_for(moved)


def test_a_program_that_stands_alone_looks_where_it_was_configured_to(tmp_path):
    alone = tmp_path / "outbox-relay"
    subprocess.run(["cp", RELAY, str(alone)], check=True)
    listed = subprocess.run([alone, "backends", "list"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.search(r"looked for in /usr/local/lib\S*/outbox-relay/backends;", listed), listed


def test_every_link_of_an_installed_guide_leads_somewhere(prefix):
    guides = glob.glob(f"{prefix}/**/*.md", recursive=True)
    assert len(guides) >= 14
    links = [(guide, link) for guide in guides for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", open(guide, encoding="utf-8").read())]
    assert len(links) >= 20
    assert [(guide, link) for guide, link in links if not os.path.exists(os.path.join(os.path.dirname(guide), link))] == []


def test_the_tutorials_are_installed(prefix):
    tutorials = run(prefix, "pkg-config", "--variable=tutorials", "outbox-backend").strip()
    assert {os.path.basename(path) for path in glob.glob(f"{tutorials}/*/*.c")} == {"redis.c", "mqtt.c", "kafka.c"}


def test_the_program_is_hardened(prefix):
    """By what stands in the ELF file, not by what the compiler was asked for."""
    program = f"{prefix}/bin/outbox-relay"
    header, segments, dynamic, symbols = (subprocess.run(["readelf", "-W", what, program], check=True, capture_output=True, text=True).stdout
                                          for what in ("-h", "-l", "-d", "--dyn-syms"))
    assert re.search(r"Type:\s+DYN", header) and "NOW PIE" in dynamic, "position-independent, all symbols bound before main()"
    assert "GNU_RELRO" in segments and "BIND_NOW" in dynamic, "tables of addresses are read-only"
    assert re.search(r"GNU_STACK\s.*\sRW\s", segments) and not re.search(r"LOAD\s.*\sRWE\s", segments), "nothing is both written and executed"
    assert "RUNPATH" not in dynamic and "RPATH" not in dynamic and "TEXTREL" not in dynamic
    assert "__stack_chk_fail@" in symbols, "stack protector"
    assert len(set(re.findall(r"__\w+_chk@", symbols))) > 5, "fortified functions of libc"
    if os.uname().machine == "x86_64":
        code = subprocess.run(["objdump", "-d", "--disassemble=main", program], check=True, capture_output=True, text=True).stdout
        assert "endbr64" in code, "control-flow protection"
