#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write model/unicode-data.c from the Unicode character database.

  pip install unicodedata2==16.0.0
  tests/tools/unicode-tables.py > model/unicode-data.c

Unicode 16 because the regular expressions of the reference tokenizers know that version.  Python's own
unicodedata is used where unicodedata2 is missing; the version is written into the file.
"""
import sys

try:
    import unicodedata2 as ud
except ImportError:
    import unicodedata as ud

LETTER, NUMBER, SPACE, UPPER, LOWER, MARK, PUNCT, SYMBOL = (1 << i for i in range(8))
BLANKS = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
ALL = range(0x110000)


def classes(c):
    if c in BLANKS:
        return SPACE
    k = ud.category(chr(c))
    return ({"L": LETTER, "N": NUMBER, "M": MARK, "P": PUNCT, "S": SYMBOL}.get(k[0], 0)
            | (UPPER if k in ("Lu", "Lt") else LOWER if k == "Ll" else 0))


def runs(f):
    out, last = [], None
    for c in ALL:
        v = f(c)
        if v != last:
            out.append((c, v))
            last = v
    return out


def table(kind, name, items, width):
    print(f"\nconst {kind} {name}[] = {{")
    line = "\t"
    for item in items:
        if len(line) + len(item) + 2 > width:
            print(line.rstrip())
            line = "\t"
        line += item + ", "
    print(line.rstrip())
    print(f"}};\nconst size_t {name}_n = ARRAY_SIZE({name});")


def canonical(c):
    d = ud.decomposition(chr(c))
    return [int(x, 16) for x in d.split()] if d and not d.startswith("<") else []


def nfc_no(c):
    """The character may change under NFC: it is not NFC_Quick_Check=Yes."""
    return c in unsafe


pairs = {c: canonical(c) for c in ALL if canonical(c)}
composes = {}
for c, d in pairs.items():
    if len(d) == 2 and ud.normalize("NFC", chr(c)) == chr(c):
        composes[tuple(d)] = c
unsafe = {c for c in ALL if not 0xD800 <= c < 0xE000 and ud.normalize("NFC", chr(c)) != chr(c)}
unsafe |= {b for _, b in composes} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))

print("/* SPDX-License-Identifier: MIT */")
print(f"/* Made by tests/tools/unicode-tables.py from Unicode {ud.unidata_version}: do not edit. */")
print('\n#include "num.h"\n#include "unicode-data.h"\n\n/* clang-format off */')
table("uint32_t", "unicode_class_runs", (f"0x{c << 8 | v:x}" for c, v in runs(classes)), 100)
ordered = runs(lambda c: (ud.combining(chr(c)) if not 0xD800 <= c < 0xE000 else 0))
table("uint32_t", "unicode_order_runs", (f"0x{c << 8 | v:x}" for c, v in ordered), 100)
table("uint32_t", "unicode_unsafe_runs", (f"0x{c << 8 | int(v):x}" for c, v in runs(nfc_no)), 100)
table("struct unicode_pair", "unicode_decompose_pairs",
      (f"{{0x{c:x}, 0x{d[0]:x}, 0x{d[1] if len(d) > 1 else 0:x}}}" for c, d in sorted(pairs.items())), 100)
place = {c: i for i, c in enumerate(sorted(pairs))}
table("uint16_t", "unicode_compose_order", (str(place[c]) for _, c in sorted(composes.items())), 100)
sys.stdout.flush()
