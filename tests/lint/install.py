# SPDX-License-Identifier: MIT
"""What `meson install` puts where: all of it, nothing else, and units that name the programs there.
Usage: install.py BUILD-DIRECTORY PREFIX SYSCONFDIR"""
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile

import lint

BUILD, PREFIX, SYSCONFDIR = sys.argv[1:]
CONFIG = SYSCONFDIR + "/moed/moed.yaml"
WANTED = [
    "bin/moe-model", "bin/moectl", "bin/moed",
    "include/moe.h",
    "lib*/libmoe.so", "lib*/libmoe.so.0", "lib*/libmoe.so.0.*", "lib*/pkgconfig/libmoe.pc",
    "lib/systemd/system/moed.service", "lib/systemd/system/moed.socket",
    "lib/sysusers.d/moed.conf", "lib/tmpfiles.d/moed.conf",
    "share/bash-completion/completions/moe-model", "share/bash-completion/completions/moectl",
    "share/bash-completion/completions/moed",
    "share/doc/moed/*.md", "share/doc/moed/moed.yaml", "share/doc/moed/example.c",
    "share/doc/moed/LICENSE",
    "share/man/man1/moe-model.1", "share/man/man1/moectl.1", "share/man/man3/libmoe.3",
    "share/man/man5/moed.yaml.5", "share/man/man8/moed.8",
    CONFIG,
]


def find(files):
    """files: {path: text or ''} below the staging directory."""
    complaints, left = [], set(files)
    for pattern in WANTED:
        pattern = pattern if pattern.startswith("/") else f"{PREFIX}/{pattern}"
        found = fnmatch.filter(files, pattern)
        if not found:
            complaints.append(f"{pattern} is not installed")
        left -= set(found)
    complaints += [f"{path} is installed: for what?" for path in sorted(left)]
    unit = files.get(f"{PREFIX}/lib/systemd/system/moed.service", "")
    for program in ("moed", "moectl"):
        if f"={PREFIX}/bin/{program}" not in unit:
            complaints.append(f"moed.service does not run {PREFIX}/bin/{program}")
    return complaints


def installed(stage):
    environment = {**os.environ, "DESTDIR": stage}
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"], check=True,
                   env=environment, stdin=subprocess.DEVNULL)
    files = {}
    for directory, _, names in os.walk(stage):
        for name in names:
            path = os.path.join(directory, name)
            text = ""
            if name.endswith((".service", ".yaml")):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
            files[path[len(stage):]] = text
    return files


if not shutil.which("meson"):
    sys.exit(lint.SKIP)
with tempfile.TemporaryDirectory() as stage:
    real = installed(stage)
    # A second time: what an administrator wrote stays.
    with open(stage + CONFIG, "w", encoding="utf-8") as file:
        file.write("log: debug\n")
    if installed(stage)[CONFIG] != "log: debug\n":
        print(f"meson install overwrites {CONFIG}")
        sys.exit(1)
lint.run(find, real, {
    "good": real,
    "alone: missing": {k: v for k, v in real.items() if not k.endswith("moe.h")},
    "too much": {**real, f"{PREFIX}/bin/extra": ""},
    "unit": {k: v.replace("bin/moed", "sbin/moed") for k, v in real.items()},
})
