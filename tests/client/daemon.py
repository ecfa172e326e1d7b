# SPDX-License-Identifier: MIT
"""Starts the fake daemon, or moed on a small model, for a test, and ends it."""

import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import tinygguf  # noqa: E402
from protocol import Client, Gone, Refused  # noqa: E402


class Skip(Exception):
    pass


class Fake:
    def __init__(self, program, folder):
        self.socket = os.path.join(folder, "fake")
        self.process = subprocess.Popen([program, self.socket], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Daemon:
    """moed on an upcycled model of random weights: 8 experts, top 2, streamed."""

    def __init__(self, moed, moe_model, folder, memory="96M", more=""):
        dense, model = os.path.join(folder, "dense.gguf"), os.path.join(folder, "model.gguf")
        self.socket, self.log = os.path.join(folder, "s"), os.path.join(folder, "log")
        if not os.path.exists(model):
            tinygguf.write(dense)
            subprocess.run([moe_model, "upcycle", dense, model, "--experts", "8", "--top-k", "2"],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        config = os.path.join(folder, "moed.yaml")
        with open(config, "w") as f:
            f.write(more)
        self.output = open(self.log, "wb")
        self.process = subprocess.Popen(
            [moed, "--config", config, "--model", model, "--memory", memory, "--socket",
             self.socket, "--state", folder, "--threads", "2"],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output)
        end = time.monotonic() + 60
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                self.output.close()
                text = self.text()
                raise (Skip if "RLIMIT_MEMLOCK" in text or "ulimit -l" in text
                       else AssertionError)(f"moed does not start: {text}")
            time.sleep(0.02)
        try:
            Client(self.socket).close()
        except (Gone, Refused) as e:
            raise AssertionError(f"moed does not get ready: {self.text()}") from e

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.output.close()
        if kind is None:
            assert status == 0, (status, self.text())
        else:
            sys.stderr.write(self.text())
