# SPDX-License-Identifier: MIT
"""What the lint tests share: the files of the project, C text without comments, and the verdict.

Each test has a function `find(files)` from {path: text} to a list of complaints, and samples that
it must complain about: a lint that can no longer fail fails here.
"""
import os
import re
import subprocess
import sys

FOLDERS = ("base", "ipc", "client", "kernels", "offload", "model", "daemon")
ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
SKIP = 77


def paths():
    """Every file of the project, relative to its root: git's list, else (a tarball) the tree's."""
    try:
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z", "--cached",
             "--others", "--exclude-standard"],
            capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
        found = [os.fsdecode(path) for path in listed.split(b"\0") if path]
    except (OSError, subprocess.CalledProcessError):
        found = []
        for directory, names, files in os.walk(ROOT):
            names[:] = [n for n in names if n != ".git" and not n.startswith("build")]
            found += [os.path.relpath(os.path.join(directory, f), ROOT) for f in files]
    return sorted(p for p in found if os.path.isfile(os.path.join(ROOT, p)))


def sources(folders=FOLDERS, endings=(".c", ".h")):
    """{path: text} of the folders' sources."""
    texts = {}
    for path in paths():
        if path.split("/")[0] in folders and path.endswith(endings):
            with open(os.path.join(ROOT, path), encoding="utf-8") as file:
                texts[path] = file.read()
    return texts


_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def code(text, strings=False):
    """C text with comments (and strings, unless asked for) blanked; lines keep their numbers."""
    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token if strings else token[0] + " " * (len(token) - 2) + token[0]
        return re.sub(r"[^\n]", " ", token)
    return _TOKEN.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def run(find, files, samples):
    """Check the samples, then the files; exit with the verdict.

    samples: {name: {path: text}}, each of which must draw at least one complaint, by itself and put
    into a copy of the files; except those whose name begins with 'good', which must draw none, and
    with 'alone', which say nothing when put into the files.
    """
    broken = False
    complaints = find(files)
    for name, sample in samples.items():
        good = name.startswith("good")
        found = find(sample)
        if bool(found) == good:
            print(f"self-test '{name}': expected {'no' if good else 'a'} complaint, got: {found}")
            broken = True
        if good or name.startswith("alone"):
            continue
        if not set(find({**files, **sample})) - set(complaints):
            print(f"self-test '{name}': nothing is found of it in a copy of the files")
            broken = True
    for complaint in complaints:
        print(complaint)
    print(f"{len(files)} files, {len(samples)} samples, {len(complaints)} complaints")
    sys.exit(1 if broken or complaints else 0)
