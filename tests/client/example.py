#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs libmoe into a folder, as a user has it, and builds and runs the example from there:
example.py BUILD PREFIX EXAMPLE.C FAKE-MOED CC [CFLAG]..."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

build, prefix, source, fake = sys.argv[1:5]
cc = sys.argv[5:]
EXPORTED = 16

with tempfile.TemporaryDirectory(prefix="moed-test-") as tmp:
    stage = os.path.join(tmp, "stage")
    env = dict(os.environ, DESTDIR=stage)
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--quiet",
                    "--tags", "runtime,devel"], env=env, check=True,
                   stdout=subprocess.DEVNULL)
    pcs = list(Path(stage).rglob("libmoe.pc"))
    assert len(pcs) == 1, pcs
    env = dict(os.environ, PKG_CONFIG_LIBDIR=str(pcs[0].parent), PKG_CONFIG_SYSROOT_DIR=stage)

    def pkg_config(*args):
        return subprocess.run(["pkg-config", *args, "libmoe"], env=env, check=True,
                              capture_output=True, text=True).stdout.split()

    library = str(next(Path(stage).rglob("libmoe.so.0")))
    header = Path(pkg_config("--variable=includedir")[0])
    assert pkg_config("--modversion")[0] == "0.1.0"

    # The public header alone, in C99 and C++; then the example.
    strict = ["-Wall", "-Wextra", "-Werror"]
    example = os.path.join(tmp, "example")
    subprocess.run([*cc, "-std=c99", "-pedantic", *strict, source, "-o", example,
                    *pkg_config("--cflags", "--libs")], check=True)
    if shutil.which("c++"):
        alone = os.path.join(tmp, "alone.cc")
        with open(alone, "w") as f:
            f.write("#include <moe.h>\nint main() { moe_request r = MOE_REQUEST_INIT; "
                    "return r.n_ids != 0; }\n")
        subprocess.run(["c++", "-std=c++11", "-pedantic", *strict, "-fsyntax-only", alone,
                        *pkg_config("--cflags")], check=True)

    # What moe.h declares is what the library exports.
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], check=True,
                             capture_output=True, text=True).stdout.split("\n")
    names = {s.split()[2].split("@")[0] for s in symbols if s and s.split()[1] in "TWDBRV"}
    names = {n for n in names if not n.startswith(("__asan", "__tsan", "__ubsan", "__odr"))}
    assert len(names) == EXPORTED and all(n.startswith("moe_") for n in names), names
    dynamic = subprocess.run(["readelf", "-d", library], check=True, capture_output=True,
                             text=True).stdout
    assert "[libmoe.so.0]" in dynamic, dynamic

    sock = os.path.join(tmp, "s")
    daemon = subprocess.Popen([fake, sock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    daemon.stdout.readline()
    try:
        env = dict(os.environ, MOED_SOCKET=sock, LD_LIBRARY_PATH=os.path.dirname(library))
        run = subprocess.run([example, "Say this: \u00e9"], env=env, capture_output=True, timeout=60)
        assert run.returncode == 0 and run.stdout.decode() == "Say this: \u00e9", run
        run = subprocess.run([example, "@error"], env=env, capture_output=True, timeout=60)
        assert b"could not be read" in run.stderr, run
    finally:
        daemon.stdin.close()
        daemon.wait()
    run = subprocess.run([example], env=env, capture_output=True, timeout=60)
    assert run.returncode == 1 and sock.encode() in run.stderr, run
print("ok")
