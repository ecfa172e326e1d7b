# SPDX-License-Identifier: MIT
"""One header of limits: LIMIT_ macros are defined in base/limit.h alone, once, and used by name."""
import re

import lint

HEADER = "base/limit.h"
DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(LIMIT_\w+)", re.MULTILINE)


def find(files):
    complaints = []
    where = {}
    bare = {path: lint.code(text) for path, text in files.items()}
    for path, text in bare.items():
        for match in DEFINE.finditer(text):
            name, place = match.group(1), f"{path}:{lint.line_of(text, match.start())}"
            if path != HEADER:
                complaints.append(f"{place}: {name} belongs in {HEADER}")
            elif name in where:
                complaints.append(f"{place}: {name} is defined twice ({where[name]})")
            where[name] = place
    for path, text in bare.items():
        if path == HEADER:
            continue
        for match in re.finditer(r"^[ \t]*#[ \t]*define[ \t]+\w*_LIMIT\b", text, re.MULTILINE):
            complaints.append(f"{path}:{lint.line_of(text, match.start())}: a limit outside {HEADER}")
        for match in re.finditer(r"\bLIMIT_\w+", text):
            if match.group(0) not in where:
                complaints.append(f"{path}:{lint.line_of(text, match.start())}: {match.group(0)} is "
                                  f"not in {HEADER}")
    return complaints


lint.run(find, lint.sources(), {
    "elsewhere": {"ipc/a.h": "#define LIMIT_A 1\n"},
    "twice": {HEADER: "#define LIMIT_A 1\n#define LIMIT_A 2\n"},
    "unknown": {"ipc/a.c": "int a = LIMIT_B;\n", HEADER: "#define LIMIT_A 1\n"},
    "other name": {"ipc/a.c": "#define MY_LIMIT 4\n"},
    "good": {"ipc/a.c": "int a = LIMIT_A; /* LIMIT_B */\n", HEADER: "#define LIMIT_A 1\n"},
})
