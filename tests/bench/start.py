# SPDX-License-Identifier: MIT
"""Starts moed with its model out of the page cache, waits until it says READY, ends it, and prints
as JSON how long that took.
Usage: start.py MODEL -- MOED [OPTION]..."""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = 300


def forget(path):
    """Out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def ready(listener, process):
    """Waits for READY=1; seconds of the clock then."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            message = listener.recv(4096)
        except socket.timeout:
            continue
        if b"READY=1" in message.split(b"\n"):
            return time.monotonic()
    raise RuntimeError("moed did not become ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = os.path.join(directory, "notify")
        listener.bind(path)
        listener.settimeout(1)
        forget(options.model)
        start = time.monotonic()
        with open(os.path.join(directory, "log"), "w+b") as log:
            process = subprocess.Popen(options.command, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env={**os.environ, "NOTIFY_SOCKET": path})
            try:
                took = ready(listener, process) - start
            except RuntimeError as error:
                log.seek(0)
                sys.exit(f"start: {error}\n{log.read().decode(errors='replace')}")
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                process.wait()
    print(json.dumps({"ready_s": took}))


if __name__ == "__main__":
    main()
