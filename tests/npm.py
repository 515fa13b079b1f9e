"""Packages of npm, for label interop; its cache stands beside the build, so that nothing is left elsewhere."""
import os
import subprocess

from harness import RELAY


def install(directory, *packages):
    """Into the directory: these packages, or what its package.json says; none of their own scripts runs."""
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    cache = os.path.join(os.path.dirname(RELAY), "npm-cache")
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "npm_config_cache": cache, "npm_config_update_notifier": "false"})
    assert done.returncode == 0, done.stdout + done.stderr
    return directory
