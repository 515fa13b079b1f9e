"""scripts/house finds what breaks the drawing of relay/README.md: each test breaks a copy of the tree in one way."""
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


@pytest.fixture
def tree(tmp_path):
    for name in ("relay", "backends"):
        shutil.copytree(os.path.join(ROOT, name), tmp_path / name)
    shutil.copy(os.path.join(ROOT, "CMakeLists.txt"), tmp_path)
    return tmp_path


def judge(tree, *more):
    done = subprocess.run([os.path.join(ROOT, "scripts", "house"), "--root", str(tree), *more], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def include(tree, path, name):
    file = tree / path
    file.write_text(f'#include "{name}"\n' + file.read_text())


def compiled(tree, files):
    """A build directory with objects of `files`: path in the house -> C text."""
    build = tree / "build"
    for path, text in files.items():
        kind = f"room_{path.split('/')[1]}" if path.startswith("relay/") else f"backend_{path.split('/')[1]}"
        source = tree / path
        source.write_text(text)
        target = build / "CMakeFiles" / f"{kind}.dir" / f"{path}.o"
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-c", str(source), "-o", str(target)], check=True)
    return str(build)


def test_the_house_as_it_is_keeps_to_its_drawing(tree):
    assert judge(tree) == (0, "")


@pytest.mark.parametrize("path, included, wanted", [
    ("relay/base/bytes.c", "store/settle.h", "relay/base/bytes.c: base/ may not use store/"),
    ("relay/machine/worker.c", "postgres/pg.h", "relay/machine/worker.c: machine/ may not use postgres/"),
    ("relay/postgres/pg.c", "plugin/backend.h", "relay/postgres/pg.c: postgres/ may not use plugin/"),
    ("relay/plugin/host.c", "postgres/pg.h", "relay/plugin/host.c: plugin/ may not use postgres/"),
    ("relay/command/cmd_run.c", "store/sql.h", "relay/command/cmd_run.c: only store may include store/sql.h"),
    ("relay/command/cmd_run.c", "store/source_state.h", "a *_state.h is for its own room"),
    ("relay/store/settle.c", "bytes.h", "includes bytes.h, which is no file of a room"),
    ("backends/http/http.c", "base/bytes.h", "neither its own nor the public header"),
    ("backends/http/http.c", "../amqp/session.h", "neither its own nor the public header"),
])
def test_a_wrong_include_is_found(tree, path, included, wanted):
    include(tree, path, included)
    code, said = judge(tree)
    assert code == 1 and wanted in said


@pytest.mark.parametrize("line", ["# include \"store/settle.h\"", "  #include\t<store/settle.h>"])
def test_an_include_written_otherwise_is_found_as_well(tree, line):
    file = tree / "relay/base/bytes.c"
    file.write_text(line + "\n" + file.read_text())
    code, said = judge(tree)
    assert code == 1 and "relay/base/bytes.c: base/ may not use store/" in said


@pytest.mark.parametrize("path, library", [
    ("relay/store/source.c", "libpq-fe.h"), ("relay/plugin/host.c", "dlfcn.h"), ("relay/config/config.c", "yaml.h"),
    ("relay/machine/pool.c", "jansson.h"), ("relay/base/log.c", "openssl/evp.h"),
])
def test_a_library_in_a_room_that_may_not_know_it_is_found(tree, path, library):
    file = tree / path
    file.write_text(f"#include <{library}>\n" + file.read_text())
    code, said = judge(tree)
    assert code == 1 and f"{path}: " in said and library in said


def test_a_file_in_no_room_is_found(tree):
    (tree / "relay" / "stray.c").write_text("")
    (tree / "relay" / "attic").mkdir()
    (tree / "relay" / "attic" / "old.c").write_text("")
    code, said = judge(tree)
    assert code == 1
    assert "relay/stray.c: stands in no room" in said
    assert "relay/attic/old.c: 'attic' is no room of the drawing" in said


def test_a_name_that_is_taken_is_found(tree):
    (tree / "relay" / "kit" / "settle.c").write_text("")
    code, said = judge(tree)
    assert code == 1 and "the name is taken by relay/kit/settle.c" in said


def test_a_room_with_too_many_files_or_without_a_readme_is_found(tree):
    for number in range(26):
        (tree / "relay" / "kit" / f"kit_more_{number}.c").write_text("")
    (tree / "relay" / "message" / "README.md").unlink()
    (tree / "relay" / "base" / "README.md").write_text("line\n" * 13)
    code, said = judge(tree)
    assert code == 1
    assert "25 is the most: divide it by noun" in said
    assert "relay/message: has no README.md" in said
    assert "relay/base/README.md: more than 12 lines" in said


def test_a_circle_of_headers_is_found(tree):
    include(tree, "relay/base/err.h", "base/bytes.h")
    code, said = judge(tree)
    assert code == 1 and "a circle: base/bytes.h -> base/err.h" in said


def test_a_library_that_cmake_links_and_nobody_drew_is_found(tree):
    cmake = tree / "CMakeLists.txt"
    text = cmake.read_text()
    changed = text.replace("add_room(kit USES base plugin", "add_room(kit USES base plugin store")
    assert changed != text
    cmake.write_text(changed)
    code, said = judge(tree)
    assert code == 1 and "room kit: CMake links base plugin store, but relay/README.md draws base include plugin" in said


def test_rooms_that_use_each_other_are_found_in_the_drawing(tree):
    page = tree / "relay" / "README.md"
    text = page.read_text()
    changed = re.sub(r"(\| 2 \| `postgres/` .*\| `base`)", r"\1 `store`", text)
    assert changed != text
    page.write_text(changed)
    code, said = judge(tree)
    assert code == 1 and "relay/README.md: a circle: postgres -> store" in said


def test_a_circle_of_calls_between_files_is_found(tree):
    build = compiled(tree, {
        "relay/base/clock.c": "int in_log(void); int in_clock(void) { return in_log(); }",
        "relay/base/log.c": "int in_clock(void); int in_log(void) { return in_clock(); }",
        "backends/http/url.c": "int in_field(void); int in_url(void) { return in_field(); }",
        "backends/http/field.c": "int in_url(void); int in_field(void) { return in_url(); }",
    })
    code, said = judge(tree, build)
    assert code == 1
    assert "calls: a circle: relay/base/clock.c -> relay/base/log.c" in said
    assert "calls: a circle: backends/http/field.c -> backends/http/url.c" in said


def test_what_the_drawing_allows_and_nothing_uses_is_found(tree):
    page = tree / "relay" / "README.md"
    page.write_text(re.sub(r"(?m)^(\| 5 \| `kit/` .*)\|$", r"\1`message` `postgres` |", page.read_text()))
    build = compiled(tree, {"relay/base/log.c": "int in_log(void) { return 0; }",
                            "relay/kit/kit.c": "int in_log(void); int in_kit(void) { return in_log(); }"})
    include(tree, "relay/kit/scaffold.h", "message/batch.h")
    code, said = judge(tree, build)
    assert code == 1
    assert "room kit: the drawing lets it use postgres/, but it calls nothing there" in said
    assert "room kit: the drawing lets it use base/" not in said
    assert "room kit: the drawing lets it use message/" not in said, "a header is of use, too"


def test_a_build_without_objects_proves_nothing(tree):
    code, said = judge(tree, str(tree / "nothing"))
    assert code == 1 and "holds no objects of the rooms" in said


def test_a_call_without_an_include_is_found(tree):
    build = compiled(tree, {
        "relay/base/log.c": "const char *in_batch(void); const char *in_log(void) { return in_batch(); }",
        "relay/message/batch.c": "const char *in_batch(void) { return 0; }",
        "relay/machine/breaker.c": "int PQlibVersion(void); int in_breaker(void) { return PQlibVersion(); }",
    })
    code, said = judge(tree, build)
    assert code == 1 and "relay/base/log.c: base/ may not use message/, says relay/README.md, but it calls in_batch" in said
    assert "relay/machine/breaker.c: calls PQlibVersion, of a library that its room may not know" in said


@pytest.mark.parametrize("path, line, wanted", [
    ("relay/base/log.c", '#define ROOM "store/settle.h"\n#include ROOM', "base may not use store/, but the compiler read store/settle.h for it"),
    ("relay/machine/suspect.c", '#define ROOM "store/source_state.h"\n#include ROOM', "read store/source_state.h for it: a *_state.h is for its own room"),
    ("relay/machine/breaker.c", '#define LIBRARY <dlfcn.h>\n#include LIBRARY', "which only plugin/loader.c may include"),
    ("backends/http/url.c", '#define ROOM "store/settle.h"\n#include ROOM', "a backend may not use store/"),
])
def test_what_the_compiler_reads_is_found_however_it_is_spelled(tree, path, line, wanted):
    (tree / path).write_text(line + "\n")
    for header in ("store/settle.h", "store/source_state.h"):
        (tree / "relay" / header).write_text("\n")
    kind = f"room_{path.split('/')[1]}" if path.startswith("relay/") else f"backend_{path.split('/')[1]}"
    build = tree / "build"
    build.mkdir()
    (build / "build.ninja").write_text(
        f"rule cc\n command = cc -I{tree}/relay -MD -MF $out.d -c $in -o $out\n deps = gcc\n depfile = $out.d\n"
        f"build CMakeFiles/{kind}.dir/{path}.o: cc {tree}/{path}\n")
    subprocess.run(["ninja", "-C", str(build)], check=True, stdout=subprocess.DEVNULL)
    code, said = judge(tree, str(build))
    assert code == 1 and wanted in said


@pytest.mark.parametrize("path", ["relay/base/log.inc", "relay/base/log.cc", "backends/http/http.hpp", "backends/stray.c"])
def test_a_file_of_another_kind_is_found(tree, path):
    (tree / path).write_text("\n")
    code, said = judge(tree)
    assert code == 1 and (f"{path}: is none of" in said or f"{path}: stands" in said)


def test_a_room_that_is_linked_past_its_drawing_is_found(tree):
    with open(tree / "CMakeLists.txt", "a", encoding="utf-8") as file:
        file.write("target_link_libraries(room_base PUBLIC room_store)\n")
    code, said = judge(tree)
    assert code == 1 and "only add_room() says what a room links" in said
