# SPDX-License-Identifier: MIT
"""Files stop at 800 lines, functions at 70; a file that is only a table (-data.c) may be longer."""
import re

import lint

FILE, FUNCTION = 800, 70
# A function of this style: its name begins a line, and its braces stand at the margin.
START = re.compile(r"^([A-Za-z_][^\n;={}]*\([^;{}]*\))\s*\n\{\n", re.MULTILINE)


def find(files):
    complaints = []
    for path, text in files.items():
        lines = text.count("\n")
        if lines > FILE and not path.endswith("-data.c"):
            complaints.append(f"{path}: {lines} lines; {FILE} are the limit")
        bare = lint.code(text)
        for match in START.finditer(bare):
            end = bare.find("\n}", match.end() - 1)
            length = bare.count("\n", match.end(), end) + 1 if end >= 0 else 0
            if length > FUNCTION:
                name = re.search(r"(\w+)\s*\(", match.group(1))
                complaints.append(f"{path}:{lint.line_of(bare, match.start())}: "
                                  f"{name.group(1)}() has {length} lines; {FUNCTION} are the limit")
    return complaints


lint.run(find, lint.sources(), {
    "file": {"base/a.c": "int a;\n" * 801},
    "function": {"base/a.c": "static int f(int a)\n{\n" + "\ta++;\n" * 71 + "}\n"},
    "broken head": {"base/a.c": "static int f(int a,\n\tint b)\n{\n" + "\ta++;\n" * 71 + "}\n"},
    "good": {"base/a.c": "int f(int a)\n{\n" + "\ta++;\n" * 70 + "}\n\nint t[] = {\n" + "\t1,\n" * 90
             + "};\n"},
})
