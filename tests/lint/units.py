# SPDX-License-Identifier: MIT
"""The units are without fault, and the sandbox is tight: exposure 1.0 or lower.
Usage: units.py SERVICE SOCKET"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

import lint

TOOL = shutil.which("systemd-analyze")
THRESHOLD = "10"  # tenths: 1.0

if not TOOL:
    print("systemd-analyze is not installed")
    sys.exit(lint.SKIP)


def analyze(*arguments):
    done = subprocess.run([TOOL, "--no-pager", *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def find(files):
    """files: {'moed.service': text, 'moed.socket': text}"""
    complaints = []
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for name, text in files.items():
            # The programs are not installed yet; any program will do.
            text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", text, flags=re.MULTILINE)
            paths.append(os.path.join(directory, name))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(text)
        status, output = analyze("verify", "--man=no", *paths)
        if status or any(directory in line for line in output.splitlines()):
            complaints.append("systemd-analyze verify: " + output.strip())
        status, output = analyze("security", "--offline=true", "--threshold=" + THRESHOLD, paths[0])
        if status:
            complaints.append("systemd-analyze security: " + output.strip())
        else:
            print(output.strip().splitlines()[-1])
    return complaints


with open(sys.argv[1], encoding="utf-8") as file:
    service = file.read()
with open(sys.argv[2], encoding="utf-8") as file:
    socket = file.read()

lint.run(find, {"moed.service": service, "moed.socket": socket}, {
    "unknown key": {"moed.service": service + "\n[Service]\nNoSuchKey=1\n", "moed.socket": socket},
    "open": {"moed.service": "[Service]\nExecStart=/bin/true\n", "moed.socket": socket},
})
