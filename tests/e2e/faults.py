# SPDX-License-Identifier: MIT
"""A bad disk under the real daemon: reads that take two seconds, fail, or bring too little; a model
that is replaced or cut off while it is in use.  A request fails and says why, or goes on; the next
one works; status and log tell.
Usage: faults.py MOED MOECTL MOE-MODEL FAULTY.so"""
import os
import shutil
import signal
import sys
import time

import service

TEXT = "the king in the house"
STEPS = 12


class Disk:
    """What spoils the reads of a daemon that uses pread."""
    def __init__(self, directory, library):
        self.path = os.path.join(directory, "faulty")
        self.environment = {"LD_PRELOAD": os.path.abspath(library), "FAULTY": self.path}
        self.spoil("")

    def spoil(self, line):
        with open(self.path + ".new", "w", encoding="ascii") as file:
            file.write(line)
        os.rename(self.path + ".new", self.path)


def asked(daemon):
    return daemon.moectl("prompt", "--raw", "--json", "--temperature", "0", "--max-tokens",
                         str(STEPS), "--", TEXT)


def check_same(daemon, expected, what):
    service.equal(daemon.ask(TEXT, "--raw", tokens=STEPS)["ids"], expected, what)


def check_fails(daemon, words, what):
    done = asked(daemon)
    service.expect(done.returncode != 0, f"{what}: the request does not fail")
    for word in words:
        service.expect(word in done.stderr, f"{what}: '{word}' is not in {done.stderr!r}")


def check_disk(programs, directory, moe, expected, library):
    disk = Disk(directory, library)
    limit = programs.floor(moe) + (2 << 20)
    with service.Service(programs, directory, "--model", moe, "--memory", str(limit),
                         config="io: pread\n", environment=disk.environment) as daemon:
        service.equal(daemon.status()["io"]["method"], "pread", "the rung")
        check_same(daemon, expected, "before anything is spoiled")
        disk.spoil("slow 2000")
        start = time.monotonic()
        child = daemon.spawn("prompt", "--raw", "--json", "--temperature", "0", "--max-tokens",
                             str(STEPS), "--", TEXT)
        time.sleep(0.5)
        daemon.status()
        service.expect(time.monotonic() - start < 2 or child.poll() is not None,
                       "the status waits for the disk")
        answer = service.json.loads(child.communicate(timeout=service.PATIENCE)[0])
        service.equal(answer["ids"], expected, "with a read of two seconds")
        service.expect(time.monotonic() - start >= 1.9, "no read was slow: nothing was tested")
        disk.spoil("short 8192")
        check_same(daemon, expected, "with short reads")
        errors = daemon.status()["io"]["errors"]
        service.equal(errors, 0, "errors of reads that went on")
        disk.spoil("eio")
        check_fails(daemon, ("cannot read expert", "Input/output error", os.path.basename(moe)), "EIO")
        service.expect(daemon.status()["io"]["errors"] > errors, "the status counts no error")
        daemon.wait_log("cannot read expert")
        disk.spoil("")
        for _ in range(2):
            check_same(daemon, expected, "when the disk is well again")
        service.equal(daemon.stop(), 0, "exit status")


def check_file(programs, directory, moe, expected):
    """The daemon keeps to the file that it opened; and that one must stay what it was."""
    path = os.path.join(directory, "model.gguf")
    shutil.copy(moe, path)
    limit = programs.floor(moe) + (2 << 20)
    with service.Service(programs, directory, "--model", path, "--memory", str(limit)) as daemon:
        check_same(daemon, expected, "before the file is replaced")
        with open(path + ".new", "wb") as file:
            file.write(bytes(1 << 20))
        kept = os.open(path, os.O_RDWR)
        os.rename(path + ".new", path)
        check_same(daemon, expected, "after another file took its name")
        os.ftruncate(kept, os.fstat(kept).st_size // 2)
        os.close(kept)
        check_fails(daemon, ("changed while in use",), "truncated")
        service.equal(daemon.status()["state"], "ready", "the daemon, when its file is cut off")
        service.expect(daemon.status()["io"]["errors"] > 0, "the status counts no error")
        daemon.wait_log("changed while in use")
        # It says so each time, and does not end.
        check_fails(daemon, ("changed while in use",), "truncated, again")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("reloaded")
        service.equal(daemon.stop(), 0, "exit status")


def main():
    *programs, library = sys.argv[1:]
    programs = service.Programs(*programs)
    with service.Directory() as directory:
        moe = programs.upcycled(programs.dense(directory), experts=24)
        expected = programs.greedy(moe, [programs.tokens(moe, TEXT)], STEPS)[0]
        check_disk(programs, directory, moe, expected, library)
        check_file(programs, directory, moe, expected)
    service.verdict("a bad disk, a changed file")


main()
