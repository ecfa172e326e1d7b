# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: a moed of their own in a directory of their own, moectl, the
tiny models, and the verdict."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import tinygguf

# Sanitizers and busy machines are slow; this ends what hangs, and measures nothing.
PATIENCE = int(os.environ.get("MOED_TEST_PATIENCE", "120"))
SKIP = 77
faults = []


def expect(condition, text):
    """One thing that has to hold; the test goes on, so that one run shows all that is wrong."""
    if not condition:
        faults.append(text)
        print("FAULT:", text, flush=True)
    return condition


def equal(have, want, what):
    return expect(have == want, f"{what}: {have!r:.300}, not {want!r:.300}")


def verdict(done):
    print(f"{done}, {len(faults)} faults")
    sys.exit(1 if faults else 0)


def wait_for(condition, what, patience=PATIENCE):
    """Poll until the condition gives something true, and return that."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)


class Directory(tempfile.TemporaryDirectory):
    """Where sockets have short names and files lie on a disk (direct reads are wanted)."""
    def __init__(self):
        super().__init__(prefix="moed-", dir="/var/tmp" if os.access("/var/tmp", os.W_OK) else None)


class Programs:
    def __init__(self, moed, moectl, moe_model):
        self.moed, self.moectl, self.moe_model = map(os.path.abspath, (moed, moectl, moe_model))

    def model(self, *arguments, text=None):
        done = subprocess.run([self.moe_model, *arguments], capture_output=True, text=True,
                              input=text or "")
        if done.returncode:
            raise RuntimeError(f"moe-model {' '.join(arguments)}: {done.returncode} {done.stderr}")
        return done.stdout

    def tokens(self, path, text, special=False):
        line = json.dumps({"text": text, "add_special": False, "parse_special": special})
        return json.loads(self.model("tokenize", path, "--jsonl", text=line + "\n"))["ids"]

    def greedy(self, path, prompts, n):
        """What the engine says without a daemon: the ids that follow each prompt."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"prompts": prompts}, file)
            file.flush()
            answers = json.loads(self.model("eval", path, "--prompts", file.name, "--greedy",
                                            str(n), "--json"))
        return [answer["greedy"] for answer in answers]

    def floor(self, path):
        """The least limit, as the plan names it."""
        done = subprocess.run([self.moe_model, "plan", path, "--memory", "1M"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return int(re.search(r"\((\d+) bytes\)", done.stderr).group(1))

    def dense(self, directory, name="dense.gguf", **shape):
        path = os.path.join(directory, name)
        tinygguf.write(path, **{"layers": 4, "hidden": 256, "ff": 1024, **shape})
        return path

    def upcycled(self, dense, experts=8, top_k=2):
        path = dense.replace(".gguf", f"-{experts}x{top_k}.gguf")
        self.model("upcycle", dense, path, "--experts", str(experts), "--top-k", str(top_k),
                   "--router", "exact")
        return path


class Service:
    """A moed in the foreground of a child process; its log is a file."""
    count = 0

    def __init__(self, programs, directory, *options, config="", environment=None, wrap=None,
                 socket=None, ready=True):
        Service.count += 1
        self.programs, self.directory = programs, directory
        self.socket = socket or os.path.join(directory, f"{Service.count}.sock")
        self.log_path = os.path.join(directory, f"{Service.count}.log")
        self.config_path = os.path.join(directory, f"{Service.count}.yaml")
        self.configure(config)
        self.options = ["--config", self.config_path, "--socket", self.socket,
                        "--state", directory, *options]
        self.environment = {k: v for k, v in os.environ.items()
                            if k not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "MOED_SOCKET")}
        self.environment.update(environment or {})
        self.wrap = wrap or []
        self.process = None
        self.start(ready)

    def configure(self, text):
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, ready=True):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.wrap, self.programs.moed, *self.options],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment, pass_fds=self.passed())
        if ready:
            self.wait_ready()

    def passed(self):
        return ()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind:
            print(f"--- {self.log_path}\n{self.log()}", flush=True)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def moectl(self, *arguments, text=None):
        return subprocess.run([self.programs.moectl, "--socket", self.socket, *arguments],
                              capture_output=True, text=True, input=text or "", timeout=PATIENCE)

    def spawn(self, *arguments):
        return subprocess.Popen([self.programs.moectl, "--socket", self.socket, *arguments],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def json(self, *arguments, text=None):
        done = self.moectl(*arguments, text=text)
        if done.returncode:
            raise RuntimeError(f"moectl {' '.join(arguments)}: {done.returncode} {done.stderr}")
        return json.loads(done.stdout)

    def status(self):
        return self.json("status", "--json")

    def ask(self, text, *options, tokens=16):
        return self.json("prompt", "--json", "--temperature", "0", "--max-tokens", str(tokens),
                         *options, "--", text)

    def wait_ready(self):
        def is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"moed ended: {self.process.returncode}\n{self.log()}")
            done = self.moectl("status", "--json")
            return done.returncode == 0 and json.loads(done.stdout)["state"] == "ready"
        wait_for(is_ready, "moed is not ready")

    def wait_log(self, pattern):
        return wait_for(lambda: re.search(pattern, self.log()), f"the log never says {pattern}")

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Ask it to end, and give the exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def run_moed(programs, *options):
    """A moed that is to end by itself."""
    return subprocess.run([programs.moed, *options], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=PATIENCE)


def has(program):
    return shutil.which(program)
