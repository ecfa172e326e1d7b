# SPDX-License-Identifier: MIT
"""Every source file names its licence in its first lines."""
import os

import lint

C_LINE = "/* SPDX-License-Identifier: MIT */"
HASH_LINE = "# SPDX-License-Identifier: MIT"
ROFF_LINE = '.\\" SPDX-License-Identifier: MIT'


def kind(path, text):
    name = os.path.basename(path)
    if path.startswith("tests/data/"):
        return None
    if name.endswith((".c", ".h")):
        return C_LINE
    if name.endswith((".py", ".sh", ".yaml", ".in", ".socket", ".service", ".conf", ".bash")):
        return HASH_LINE
    if name in ("meson.build", "meson_options.txt") or text.startswith("#!"):
        return HASH_LINE
    if name.endswith((".1", ".3", ".5", ".8")):
        return ROFF_LINE
    return None


def find(files):
    complaints = []
    for path, text in files.items():
        want = kind(path, text)
        if want and want not in text.splitlines()[:2]:
            complaints.append(f"{path}:1: the first lines lack '{want}'")
    return complaints


def everything():
    files = {}
    for path in lint.paths():
        with open(os.path.join(lint.ROOT, path), encoding="utf-8", errors="replace") as file:
            files[path] = file.read(4096)
    return files


lint.run(find, everything(), {
    "no line": {"base/a.c": "int a;\n"},
    "wrong comment": {"base/a.h": "// SPDX-License-Identifier: MIT\n"},
    "late": {"a.py": "#!/usr/bin/python3\n\n# SPDX-License-Identifier: MIT\n"},
    "script": {"check": "#!/bin/bash\necho\n"},
    "good": {"a.c": C_LINE + "\n", "run": "#!/bin/bash\n" + HASH_LINE + "\n", "README.md": "a\n"},
})
