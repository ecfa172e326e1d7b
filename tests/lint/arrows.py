# SPDX-License-Identifier: MIT
"""Who may include whom: base <- ipc, kernels, offload; ipc <- client; kernels, offload <- model;
all but client <- daemon.  The build enforces it by search paths; this finds a way around them."""
import os
import re

import lint

MAY = {
    "base": set(),
    "ipc": {"base"},
    "kernels": {"base"},
    "offload": {"base"},
    # client sees ipc, and through it base
    "client": {"ipc", "base"},
    "model": {"kernels", "offload", "base"},
    "daemon": {"base", "ipc", "kernels", "offload", "model"},
}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)
GENERATED = {"config.h"}


def find(files):
    owner = {}
    for path in files:
        if path.endswith(".h"):
            owner.setdefault(os.path.basename(path), set()).add(path.split("/")[0])
    complaints = []
    for path, text in files.items():
        folder = path.split("/")[0]
        for match in INCLUDE.finditer(lint.code(text, strings=True)):
            name = match.group(1)
            where = f"{path}:{lint.line_of(text, match.start())}"
            if ".." in name.split("/"):
                complaints.append(f"{where}: '{name}' leaves the folder")
                continue
            owners = owner.get(os.path.basename(name), set())
            if os.path.basename(name) in GENERATED or folder in owners:
                continue
            if not owners:
                complaints.append(f"{where}: nobody has '{name}'")
            elif not owners & MAY[folder]:
                complaints.append(f"{where}: {folder} may not include {'/'.join(sorted(owners))}: "
                                  f"'{name}'")
    return complaints


lint.run(find, lint.sources(), {
    "upwards": {"base/a.c": '#include "b.h"\n', "model/b.h": ""},
    "sideways": {"kernels/a.c": '#include "b.h"\n', "offload/b.h": ""},
    "client from daemon": {"daemon/a.c": '#include "moe.h"\n', "client/moe.h": ""},
    "dots": {"base/a.c": '#include "../base/b.h"\n', "base/b.h": ""},
    "nobody": {"base/a.c": '#include "b.h"\n'},
    "good": {"daemon/a.c": '#include "b.h"\n#include "config.h"\n', "model/b.h": '// #include "x"\n'},
})
