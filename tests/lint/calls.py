# SPDX-License-Identifier: MIT
"""Calls that the project does without: unbounded copies, unchecked numbers, stack allocation of a
size from outside; ending the process below main(); a library that prints."""
import re

import lint

BANNED = {
    "strcat": "bounded copies only", "stpcpy": "bounded copies only",
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "fgets", "strncpy": "it may not terminate",
    "strtok": "it has hidden state", "alloca": "no stack allocation of a size from outside",
    "atoi": "num_parse_u64", "atol": "num_parse_u64", "atoll": "num_parse_u64",
    "atof": "num_parse_double", "strtol": "num_parse_u64", "strtoul": "num_parse_u64",
    "strtoll": "num_parse_u64", "strtoull": "num_parse_u64", "strtod": "num_parse_double",
    "strtof": "num_parse_double", "system": "no shell", "popen": "no shell",
    "rand": "the sampler's generator", "srand": "the sampler's generator", "tmpnam": "mkostemp",
    "mktemp": "mkostemp", "setjmp": "errors travel up", "longjmp": "errors travel up",
}
ENDS = {"exit", "abort", "_exit", "_Exit", "quick_exit"}
PRINTS = {"printf", "puts", "putchar", "perror", "vprintf"}
QUIET = ("base/", "ipc/", "kernels/", "offload/", "model/")
# Where a banned call is what the file is for.
ALLOWED = {("base/num.c", name) for name in ("strtod", "strtoull", "strtoul", "strtoll")}
CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(")


def find(files):
    complaints = []
    for path, text in files.items():
        bare = lint.code(text)
        program = re.search(r"^int main\(|^main\(", bare, re.MULTILINE)
        tool = program or "/cmd/" in path
        for match in CALL.finditer(bare):
            name = match.group(1)
            where = f"{path}:{lint.line_of(bare, match.start())}"
            if name in BANNED and (path, name) not in ALLOWED:
                complaints.append(f"{where}: {name}(): {BANNED[name]}")
            elif name in ENDS and not program:
                complaints.append(f"{where}: {name}(): nothing below main() ends the process")
            elif name in PRINTS and path.startswith(QUIET) and not tool:
                complaints.append(f"{where}: {name}(): libraries do not print")
        if path.startswith(QUIET) and not tool and re.search(r"\bstderr\b", bare):
            complaints.append(f"{path}: libraries do not print (stderr)")
    return complaints


lint.run(find, lint.sources(), {
    "copy": {"base/a.c": "void f(char *a) { strcat(a, b); }\n"},
    "number": {"model/a.c": "int f(void) { return atoi(x); }\n"},
    "end": {"daemon/a.c": "void f(void)\n{\n\tabort();\n}\n"},
    "print": {"model/a.c": 'void f(void) { printf("a"); }\n'},
    "stderr": {"offload/a.c": 'void f(void) { fprintf(stderr, "a"); }\n'},
    "good": {"model/cmd/a.c": "int main(void)\n{\n\tprintf(a); exit(1); // strcat(\n}\n",
             "base/a.c": 'int f(void) { return s->exit(1) + g("atoi(") + my_exit(2); }\n',
             "base/num.c": "int f(void) { return strtod(a, 0); }\n"},
})
