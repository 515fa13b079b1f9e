"""The public header from Rust: bindgen makes bindings of it, and a backend that is written with them conforms."""
import os
import shutil
import subprocess

import plugins
from harness import HERE, relay

REDIS = "127.0.0.1:" + os.environ.get("TEST_REDIS_PORT", "")


def test_a_backend_in_rust_conforms(tmp_path):
    project = tmp_path / "rust"
    shutil.copytree(os.path.join(HERE, "interop", "rust"), project, ignore=shutil.ignore_patterns("target"))
    header = os.path.join(plugins.HEADER, "outbox_backend.h")
    built = subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=project, env={**os.environ, "OUTBOX_HEADER": os.path.realpath(header)},
                           capture_output=True, text=True, timeout=500, check=False)
    assert built.returncode == 0, built.stderr
    os.chmod(tmp_path, 0o755)
    path = tmp_path / "rustsample.so"
    shutil.copy(project / "target" / "release" / "librustsample.so", path)
    done = relay("backends", "test", str(path), "-o", "address=" + REDIS, "--proxy", "address", timeout=400)
    assert done.returncode == 0 and done.stdout.endswith(f" 0 failed, 0 skipped\n# rustsample 0.1.0 ({path}), backend ABI 1.4: conformant\n"), done.stdout
