"""What is refused as a backend, by which sentence, and that nothing of it has run by then."""
import json
import os
import shutil
import struct
import subprocess
import tempfile

import pytest

import plugins
from harness import DATABASE, RELAY, relay


@pytest.fixture
def own_directory(tmp_path):
    os.chmod(tmp_path, 0o755)
    return tmp_path


@pytest.fixture
def trace(own_directory):
    return own_directory / "trace"


def refusal(path, *options):
    """Every command that needs the backend refuses alike; the sentence of one of them."""
    said = {}
    for command in ("check", "drain"):
        done = relay(command, "-d", DATABASE + " dbname=nonesuch", "-b", str(path), *options)
        assert done.returncode == 78, done.stderr
        said[command] = done.stderr
    assert said["check"] == said["drain"]
    return said["check"]


def traced(directory, trace, name="sample", **more):
    return plugins.build(directory, name, f'-DTRACE="{trace}"', **more)


def header_with(directory, old, new):
    copy = directory / "include"
    copy.mkdir()
    with open(os.path.join(plugins.HEADER, "outbox_backend.h"), encoding="utf-8") as header:
        text = header.read()
    assert old in text
    (copy / "outbox_backend.h").write_text(text.replace(old, new))
    return copy


def patched(path, change):
    """The file with `change` applied to its bytes."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    change(content)
    with open(path, "wb") as file:
        file.write(content)


def test_the_sample_itself_is_loaded_and_then_its_constructor_has_run(own_directory, trace):
    done = relay("backends", "show", traced(own_directory, trace))
    assert done.returncode == 0 and "sample 1.0.0" in done.stdout, done.stderr
    assert "sample.address: text, required" in done.stdout and "secret" in done.stdout
    assert trace.exists()


@pytest.mark.parametrize("old, new, sentence", [
    ("ABI_MAJOR 1u", "ABI_MAJOR 2u", "sample 1.0.0 was built for backend ABI 2.4, and this relay supports 1.0 to 1.4: build it with this"
     " relay's outbox_backend.h"),
    ("ABI_MINOR 4u", "ABI_MINOR 7u", "sample 1.0.0 was built for backend ABI 1.7, and this relay supports 1.0 to 1.4"),
    ("(uint32_t)sizeof(void *)", "4u", "sample 1.0.0 was built for pointers of 4 bytes, and this relay's have 8: build it for this"
     " relay's architecture"),
])
def test_another_abi_is_refused_before_any_of_its_code_runs(own_directory, trace, old, new, sentence):
    path = traced(own_directory, trace, header=header_with(own_directory, old, new))
    assert f"backend: {path}: {sentence}" in refusal(path)
    assert relay("backends", "show", path).returncode == 78
    assert not trace.exists()


def test_a_file_of_another_elf_class_or_byte_order_is_refused(own_directory, trace):
    path = traced(own_directory, trace)
    patched(path, lambda content: content.__setitem__(4, 1))
    assert any(words in refusal(path) for words in ("no shared object", "ends before its own content", "pointers of 4"))
    patched(path, lambda content: (content.__setitem__(4, 2), content.__setitem__(5, 2)))
    assert "it was built for another machine: build it on this one" in refusal(path)
    assert not trace.exists()


def test_text_and_empty_files_are_refused(own_directory):
    for content in ("", "#!/bin/sh\necho I am no backend\n", "\x7fELF"):
        path = own_directory / "text.so"
        path.write_text(content)
        assert "it is no shared object of this machine: build it with cc -shared -fPIC" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_cut_off_file_is_refused_wherever_it_was_cut(own_directory, trace, share):
    path = traced(own_directory, trace)
    patched(path, lambda content: content.__delitem__(slice(int(len(content) * share), None)))
    assert "the file ends before its own content does: copy or build it again" in refusal(path)
    assert not trace.exists()


def test_a_hostile_note_is_no_crash(own_directory):
    path = plugins.build(own_directory, "sample")
    with open(path, "rb") as file:
        at = file.read().index(b"Outbox\0\0") - 12
    for namesz, descsz in ((0xFFFFFFFF, 8), (7, 0xFFFFFFFF), (7, 0), (0, 0)):
        patched(path, lambda content: struct.pack_into("<II", content, at, namesz, descsz))  # pylint: disable=cell-var-from-loop
        assert "it is a shared object, but no backend: OUTBOX_BACKEND() is missing" in refusal(path)


def test_a_file_that_others_may_write_is_refused(own_directory, trace):
    path = traced(own_directory, trace, "open")
    os.chmod(path, 0o777)
    assert f"file {path} may be written by others (mode 0777): chmod go-w it" in refusal(path)
    os.chmod(path, 0o755)
    os.chmod(own_directory, 0o757)
    assert f"directory {own_directory} may be written by others (mode 0757): chmod go-w it" in refusal(path)
    os.chmod(own_directory, 0o755)
    link = own_directory / "link.so"
    os.symlink(path, link)
    assert not trace.exists()
    assert relay("backends", "show", str(link)).returncode == 0


@pytest.fixture
def of_rabbitmq():
    """A directory with the relay and a plugin, of a user whose umask is 002: his group may write, and it is his alone."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    directory = tempfile.mkdtemp(dir="/tmp")
    shutil.copy(RELAY, directory)
    plugins.build(directory, "sample")
    subprocess.run([*as_root, "chmod", "-R", "0775", directory], check=True)
    subprocess.run([*as_root, "chown", "-R", "rabbitmq:rabbitmq", directory], check=True)

    def show(group="/etc/group"):
        script = 'mount --bind "$1" /etc/group && exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups "$2/outbox-relay" backends show "$2/sample.so"'
        return subprocess.run([*as_root, "unshare", "--mount", "sh", "-c", script, "sh", group, directory],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)

    yield directory, show, as_root
    subprocess.run([*as_root, "rm", "-r", directory], check=True)


def test_the_group_that_its_owner_has_for_himself_may_write_it(of_rabbitmq):
    _, show, _ = of_rabbitmq
    done = show()
    assert done.returncode == 0 and "sample 1.0.0" in done.stdout, done.stderr


def test_a_group_with_another_member_may_not(of_rabbitmq, tmp_path):
    directory, show, as_root = of_rabbitmq
    with open("/etc/group", encoding="utf-8") as group:
        lines = [line.rstrip() + ("daemon" if line.startswith("rabbitmq:") else "") for line in group]
    assert "daemon" in next(line for line in lines if line.startswith("rabbitmq:"))
    shared = tmp_path / "group"
    shared.write_text("\n".join(lines) + "\n")
    refused = f"file {directory}/sample.so may be written by others (mode 0775): chmod go-w it"
    done = show(str(shared))
    assert done.returncode == 78 and refused in done.stderr, done.stderr
    subprocess.run([*as_root, "chgrp", "daemon", directory + "/sample.so"], check=True)
    done = show()
    assert done.returncode == 78 and refused in done.stderr, done.stderr


ACL_WITH_NOBODY = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, identity) for tag, rights, identity in [
    (0x01, 7, 0xffffffff), (0x02, 6, 65534), (0x04, 5, 0xffffffff), (0x10, 7, 0xffffffff), (0x20, 5, 0xffffffff)])  # user, user nobody, group, mask, other


@pytest.mark.parametrize("what", ["sample.so", ""])
def test_nor_may_somebody_whom_an_access_control_list_names(of_rabbitmq, what):
    directory, show, as_root = of_rabbitmq
    path = os.path.join(directory, what) if what else directory
    assert show().returncode == 0
    subprocess.run([*as_root, "python3", "-c", "import os, sys; os.setxattr(sys.argv[1], 'system.posix_acl_access', bytes.fromhex(sys.argv[2]))",
                    path, ACL_WITH_NOBODY.hex()], check=True)
    done = show()
    assert done.returncode == 78 and f"{path} may be written by others (mode 0775)" in done.stderr, done.stderr


def test_a_file_of_somebody_else_is_refused(own_directory, trace):
    path = traced(own_directory, trace)
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*as_root, "chown", "nobody", path], check=True)
    assert f"file {path} belongs to user 65534: chown it to root or to the relay's user" in refusal(path)
    assert not trace.exists()


@pytest.mark.parametrize("flag, sentence", [
    ("-DWITHOUT_PUBLISH", "its table has no publish(): set .publish"),
    ("-DENTRY_MISSING", "it is a shared object, but no backend: OUTBOX_BACKEND() is missing"),
])
def test_an_incomplete_plugin_is_refused(own_directory, flag, sentence):
    assert sentence in refusal(plugins.build(own_directory, "sample", flag, "-Wno-unused"))


def test_a_library_that_is_no_backend_is_refused(own_directory):
    library = next(os.path.join(directory, name) for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
                   if os.path.isdir(directory) for name in os.listdir(directory) if name.startswith("libpq.so"))
    assert "it is a shared object, but no backend: OUTBOX_BACKEND() is missing" in refusal(library)


def test_a_symbol_that_nobody_has_is_told(own_directory):
    source = own_directory / "lost.c"
    with open(plugins.SAMPLE, encoding="utf-8") as sample:
        source.write_text(sample.read().replace("(void)pause()", "0").replace("free(backend);", "extern void nobody(void); nobody();"))
    path = plugins.build(own_directory, "sample", source=str(source))
    assert "undefined symbol: nobody" in refusal(path)


def test_paths_are_absolute_and_names_are_known(own_directory):
    assert './sample.so: write an absolute path, such as "$PWD/sample.so"' in refusal("./sample.so")
    assert "there is no backend 'nonesuch', built in or in /" in refusal("nonesuch")
    assert "cannot open it: No such file" in refusal(own_directory / "nonesuch.so")
    (own_directory / "directory.so").mkdir()
    assert "it is not a regular file" in refusal(own_directory / "directory.so")


def test_options_of_a_plugin_are_checked_redacted_and_documented(own_directory):
    path = plugins.build(own_directory, "sample")
    assert "sample.address is required by backend sample" in refusal(path)
    said = refusal(path, "-o", "sample.adress=x", "-o", "sample.window=1000")
    assert "unknown key 'sample.adress'; did you mean 'sample.address'?" in said and "'1000' is out of bounds: allowed is 1 to 100" in said
    options = ("-b", path, "-o", "sample.address=127.0.0.1:1", "-o", "sample.password=hush-hush")
    shown = relay("config", "show", *options)
    assert 'sample.address: "127.0.0.1:1"  # flag -o' in shown.stdout and 'sample.password: "***"' in shown.stdout, shown.stderr
    schema = json.loads(relay("config", "schema", *options).stdout)
    assert schema["properties"]["sample"]["properties"]["window"]["maximum"] == 100
    assert "hush-hush" not in shown.stdout + json.dumps(schema)
    sample = relay("config", "init", *options).stdout
    assert "sample:\n  # HOST:PORT of a Redis\n" in sample
    file = own_directory / "relay.yaml"
    file.write_text(sample.replace('# address: ""', "address: 127.0.0.1:1"))
    assert relay("config", "show", "-c", str(file), "-b", path).returncode == 0


def test_commands_that_publish_nothing_do_not_need_the_plugin(own_directory):
    file = own_directory / "relay.yaml"
    file.write_text("backend: /nowhere/lost.so\nlost: { host: x }\ndatabase: host=127.0.0.1 port=1 dbname=x\n")
    done = relay("status", "-c", str(file))
    assert done.returncode == 69, done.stderr
    file.write_text("backend: /nowhere/lost.so\nbatch: { max_message: 5 }\n")
    done = relay("status", "-c", str(file))
    assert done.returncode == 78 and "did you mean 'batch.max_messages'" in done.stderr


def test_the_backends_of_the_directory_are_listed_by_their_notes(own_directory):
    listed = json.loads(relay("backends", "list", "--json").stdout)
    assert {one["name"] for one in listed if one.get("place") == "built in"} == {"amqp", "http", "stdout", "null", "fail"}
    plain = relay("backends", "list").stdout
    directory = plain.rsplit("looked for in ", 1)[1].split(";")[0]
    assert {one["place"] for one in listed if one.get("place") != "built in"} == {
        os.path.join(directory, name) for name in (os.listdir(directory) if os.path.isdir(directory) else []) if name.endswith(".so")}


def test_a_plugin_of_a_built_in_name_takes_its_place(own_directory):
    directory = relay("backends", "list").stdout.rsplit("looked for in ", 1)[1].split(";")[0]
    shutil.copy(os.path.join(directory, "http.so"), own_directory / "http.so")
    done = relay("config", "show", "-b", str(own_directory / "http.so"), "-o", "http.url=http://x/")
    assert done.returncode == 0 and "http.url: http://x/" in done.stdout, done.stderr


def changed(directory, old, new, name="sample", of=plugins.SAMPLE, **more):
    """The sample with a change in its source."""
    source = directory / "changed.c"
    with open(of, encoding="utf-8") as sample:
        text = sample.read()
    assert old in text
    source.write_text(text.replace(old, new))
    return plugins.build(directory, name, source=str(source), **more)


def test_a_newer_headers_plugin_that_needs_nothing_new_is_taken(own_directory):
    header = header_with(own_directory, "ABI_MINOR 4u", "ABI_MINOR 7u")
    with pytest.raises(subprocess.CalledProcessError):
        plugins.build(own_directory, "sample", "-DOUTBOX_BACKEND_USES_MINOR=8", header=header)
    path = plugins.build(own_directory, "sample", "-DOUTBOX_BACKEND_USES_MINOR=0", header=header)
    done = relay("backends", "show", path)
    assert done.returncode == 0 and "sample 1.0.0" in done.stdout, done.stderr


def test_options_that_grew_are_read_one_after_the_other(own_directory):
    header = header_with(own_directory, "    const char *help;    /* one line */\n", "    const char *help;\n    const char *more[3];\n")
    path = changed(own_directory, "    .options = options,\n", "    .options = options,\n    .option_size = sizeof(struct outbox_option),\n", header=header)
    done = relay("backends", "show", path)
    assert done.returncode == 0 and "sample.address: text, required" in done.stdout and "sample.window: whole number, 1 to 100, default 10" in done.stdout, done.stdout
    assert "unknown key" not in relay("check", "-d", "dbname=x", "-b", path, "-o", "sample.address=x:1", "-o", "sample.window=7").stderr
    assert "'101' is out of bounds: allowed is 1 to 100" in refusal(path, "-o", "sample.address=x:1", "-o", "sample.window=101")


@pytest.mark.parametrize("size", ["1", "sizeof(struct outbox_option) - 8", "sizeof(struct outbox_option) + 1", "1 << 20"])
def test_a_size_of_options_that_cannot_be_is_refused(own_directory, size):
    path = changed(own_directory, "    .options = options,\n", f"    .options = options,\n    .option_size = {size},\n")
    assert "bytes each: set .option_size = sizeof(struct outbox_option)" in refusal(path)


def test_a_plugin_needs_no_options(own_directory):
    template = os.path.join(os.path.dirname(plugins.REDIS), "..", "template", "example.c")
    path = changed(own_directory, "    .options = options,\n", "", name="example", of=template)
    done = relay("backends", "show", path)
    assert done.returncode == 0 and "no options" in done.stdout, done.stderr
    done = relay("config", "show", "-d", "dbname=x", "-b", path)
    assert done.returncode == 0 and "example" in done.stdout, done.stderr


def test_a_default_that_its_own_row_refuses_is_told_and_no_crash(own_directory):
    path = changed(own_directory, '"10", NULL, 1, 100', '"1000", NULL, 1, 100')
    said = refusal(path, "-o", "sample.address=x:1")
    assert "sample: a default in its table: window: '1000' is out of bounds: allowed is 1 to 100" in said
    for words in (["show", path], ["test", path]):
        done = relay("backends", *words)
        assert done.returncode == 78 and "sample: a default in its table: window: '1000' is out of bounds" in done.stderr, done.stderr


def test_options_that_cannot_be_told_apart_are_refused(own_directory):
    path = changed(own_directory, '{"window",', '{"address.port", OUTBOX_OPT_INT, 0, NULL, NULL, 0, 0, "x"},\n    {"window",')
    assert "options 'address' and 'address.port' cannot be told apart: rename one" in refusal(path)


def test_a_plugins_section_may_be_empty_where_the_plugin_is_not_loaded_and_others_are_still_checked(own_directory):
    path = plugins.build(own_directory, "sample")
    file = own_directory / "relay.yaml"
    file.write_text(f"backend: {path}\nsample:\n  # nothing\ndatabase: host=127.0.0.1 port=1 dbname=x\n")
    assert relay("status", "-c", str(file)).returncode == 69
    file.write_text(f"backend: {path}\nsampel: {{ address: x }}\n")
    done = relay("status", "-c", str(file))
    assert done.returncode == 78 and "unknown key 'sampel'" in done.stderr


@pytest.mark.parametrize("name", ["log", "package", "test", "Upper", "1st", "http", "a-b", "../up", ""])
def test_a_name_that_would_not_work_makes_no_project(own_directory, name):
    done = relay("backends", "new", name, cwd=own_directory)
    assert done.returncode == 64 and os.listdir(own_directory) == [], done.stderr


# Words of C, macros of its library, functions and variables that the project uses.
@pytest.mark.parametrize("name", ["errno", "failed", "int", "linux", "stdin", "calloc", "session", "table", "options"])
def test_a_project_of_any_other_name_builds_and_conforms(own_directory, name):
    done = relay("backends", "new", name, cwd=own_directory)
    assert done.returncode == 0, done.stderr
    path = plugins.build(own_directory / name, name, "-Werror", source=str(own_directory / name / (name + ".c")))
    tested = relay("backends", "test", path, "--only", "a message is confirmed", cwd=own_directory)
    assert tested.returncode == 0 and f"# {name} 0.1.0 ({path}), backend ABI 1.4: partial" in tested.stdout, tested.stdout
