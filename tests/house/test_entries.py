"""Every file of tests is run by an entry of CTest: one that no entry names would be red without anybody's knowing."""
import glob
import os
import re

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def test_every_file_of_tests_is_run_by_an_entry():
    with open(os.path.join(TESTS, "CMakeLists.txt"), encoding="utf-8") as file:
        text = file.read()
    run = set(re.findall(r"(\w+/test_\w+)\.(?:py|c)", text))
    loops = re.findall(r"foreach\(name ([^)]*)\)\n(.*?)endforeach", text, re.S)
    assert len(loops) > 3, "the lists of names are read"
    for names, body in loops:
        for folder in re.findall(r"(\w+)/test_\$\{name\}\.py", body) + (["unit"] if "add_unit(${name})" in body else []):
            run |= {f"{folder}/test_{name}" for name in names.split()}
    run |= {f"unit/test_{name}" for name in re.findall(r"add_unit\((\w+) ", text)}
    there = {os.path.relpath(path, TESTS).rpartition(".")[0] for path in glob.glob(f"{TESTS}/*/test_*.[cp]*") if not path.endswith(".pyc")}
    there = {path for path in there if not path.startswith(("house/", "torture/", "fuzz/", "model/", "stress/", "bench/"))}
    assert len(there) > 60 and there - run == set(), sorted(there - run)
    assert not {path for path in run - there if not path.startswith("interop/")}, sorted(run - there)
