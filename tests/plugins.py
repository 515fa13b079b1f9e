"""Builds plugins as their authors do: one C file, one line of cc."""
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(HERE, "..", "relay", "include")
MISDEEDS = os.path.join(HERE, "plugin_sample", "misdeeds.h")
SAMPLE = os.path.join(HERE, "plugin_sample", "sample.c")
REDIS = os.path.join(HERE, "..", "backends", "redis", "redis.c")


def build(directory, name, *flags, source=SAMPLE, header=HEADER, libraries=()):
    """The path of NAME.so in the directory."""
    path = os.path.join(str(directory), name + ".so")
    subprocess.run(["cc", "-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-fvisibility=hidden",
                    *flags, "-I", str(header), "-I", os.path.dirname(SAMPLE), source, "-o", path, "-lpthread", *libraries], check=True)
    return path
