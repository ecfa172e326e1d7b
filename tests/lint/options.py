# SPDX-License-Identifier: MIT
"""etc/moed.yaml and moed.yaml(5) say what the table of options in daemon/config.c says.
Usage: options.py OPTIONS-DUMP [--write]   (--write: make both files from the table)"""
import os
import re
import subprocess
import sys

import lint

YAML, MAN = "etc/moed.yaml", "docs/man/moed.yaml.5"
BEGIN, END = ".SH OPTIONS\n", ".SH EXAMPLE\n"
KEY = re.compile(r"( *)(#?)([a-z-]+):(?: (.*))?$")


def parse(dump):
    """[(name, help, allowed, default or None)] of the table as the program prints it."""
    options, comment, group = [], [], ""
    for line in dump.splitlines():
        key = KEY.match(line)
        if not line.strip():
            comment = []
        elif line.lstrip().startswith("# "):
            comment.append(line.strip()[2:])
        elif not key:
            raise ValueError(f"the table prints '{line}'")
        elif key.group(4) is None:
            group = key.group(3) + "."
        else:
            text, allowed = re.fullmatch(r"(.*) \(([^()]*)\)", " ".join(comment)).groups()
            name = (group if key.group(1) else "") + key.group(3)
            options.append((name, text, allowed, None if key.group(2) else key.group(4)))
            comment = []
    return options


def roff(text):
    return text.replace("\\", "\\e").replace("-", "\\-")


def manual(options):
    """The section OPTIONS of the manual page; a sentence a line."""
    lines = []
    for name, text, allowed, default in options:
        lines += [".TP", ".B " + roff(name)]
        lines += [roff(s) for s in re.split(r"(?<=\.) +(?=\S)", text)]
        lines.append(f"({roff(allowed)})")
        if default is not None:
            lines.append(f"Default: \\fB{roff(default)}\\fR.")
    return "".join(line + "\n" for line in lines)


def find(files):
    dump = files["table"]
    complaints = []
    if files[YAML] != dump:
        for number, (have, want) in enumerate(
                zip(files[YAML].splitlines() + [""] * 999, dump.splitlines() + [""]), 1):
            if have != want:
                complaints.append(f"{YAML}:{number}: '{have}' should be '{want}'")
                break
        else:
            complaints.append(f"{YAML} goes on after the table's end")
    section = files[MAN].partition(BEGIN)[2].partition(END)[0]
    if section != manual(parse(dump)):
        complaints.append(f"{MAN}: the section OPTIONS is not the table's")
    return ["{} (tests/lint/options.py OPTIONS-DUMP --write makes it)".format(c) for c in complaints]


def read(path):
    with open(os.path.join(lint.ROOT, path), encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(os.path.join(lint.ROOT, path), "w", encoding="utf-8") as file:
        file.write(text)


table = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=True,
                       stdin=subprocess.DEVNULL).stdout
page = read(MAN)
if sys.argv[2:] == ["--write"]:
    before, begin, rest = page.partition(BEGIN)
    write(YAML, table)
    write(MAN, before + begin + manual(parse(table)) + END + rest.partition(END)[2])
    sys.exit(0)

SAMPLE = "\n# What.  It does-so.\n# (a text)\nd: x\n\na:\n  # B.\n  # (a number)\n  b-c: 1\n"
GOOD = BEGIN + ".TP\n.B d\nWhat.\nIt does\\-so.\n(a text)\nDefault: \\fBx\\fR.\n" \
    ".TP\n.B a.b\\-c\nB.\n(a number)\nDefault: \\fB1\\fR.\n" + END
lint.run(find, {"table": table, YAML: read(YAML), MAN: page}, {
    "good": {"table": SAMPLE, YAML: SAMPLE, MAN: GOOD},
    "other default": {"table": SAMPLE, YAML: SAMPLE.replace("1", "2"), MAN: GOOD},
    "key missing": {"table": SAMPLE, YAML: SAMPLE[:-9], MAN: GOOD},
    "key too many": {"table": SAMPLE, YAML: SAMPLE + "e: 1\n", MAN: GOOD},
    "page": {"table": SAMPLE, YAML: SAMPLE, MAN: GOOD.replace("does", "did")},
})
