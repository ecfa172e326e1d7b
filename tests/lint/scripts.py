# SPDX-License-Identifier: MIT
"""The scripts are sound shell, say what they take, and refuse what they do not."""
import os
import shutil
import subprocess
import sys
import tempfile

import lint

SHELL = ["quickstart", "check", ".ci/run", "etc/install-config.sh", "etc/completions/moed.bash",
         "etc/completions/moectl.bash", "etc/completions/moe-model.bash"]
# arguments, exit status, what is said
CALLS = [
    (["quickstart", "--help"], 0, "Usage: ./quickstart"),
    (["quickstart", "--nonsense"], 2, "--nonsense"),
    (["quickstart", "extra"], 2, "extra"),
    (["quickstart", "--model"], 2, "--model needs a value"),
    (["quickstart", "--model", "/nonexistent.gguf"], 2, "there is no file"),
    (["quickstart", "--model", "README.md"], 2, "no GGUF file"),
    (["quickstart", "--memory", "lots"], 2, "no size"),
    (["quickstart", "--memory=6GB"], 2, "no size"),
    (["check", "--help"], 0, "Usage: ./check"),
    (["check", "--nonsense"], 2, "--nonsense"),
    (["check", "nostage"], 2, "nostage"),
    (["check", "--jobs", "0"], 2, "--jobs"),
]


def shell(path):
    """The faults that the shell and, where it is installed, shellcheck find."""
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    faults = done.stderr
    if shutil.which("shellcheck"):
        faults += subprocess.run(["shellcheck", path], capture_output=True, text=True).stdout
    return faults.strip()


def find(files):
    complaints = []
    with tempfile.TemporaryDirectory() as directory:
        for path, text in files.items():
            copy = os.path.join(directory, os.path.basename(path))
            with open(copy, "w", encoding="utf-8") as file:
                file.write(text)
            faults = shell(copy)
            if faults:
                complaints.append(f"{path}: {faults}")
    return complaints


def read(path):
    with open(os.path.join(lint.ROOT, path), encoding="utf-8") as file:
        return file.read()


broken = False
for (program, *arguments), status, words in CALLS:
    done = subprocess.run([os.path.join(lint.ROOT, program), *arguments], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL, cwd=lint.ROOT)
    if done.returncode != status or words not in done.stdout + done.stderr:
        print(f"{program} {' '.join(arguments)}: status {done.returncode}, not {status}: "
              f"{done.stdout}{done.stderr}")
        broken = True
if broken:
    sys.exit(1)
lint.run(find, {path: read(path) for path in SHELL}, {
    "syntax": {"a": "#!/bin/bash\nif true; then\n"},
    "good": {"a": "#!/bin/bash\necho\n"},
})
