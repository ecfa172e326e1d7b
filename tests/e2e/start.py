# SPDX-License-Identifier: MIT
"""After the start: a prompt is answered at once, experts are read ahead meanwhile, status and log
say how far; then, without work, the daemon does nothing at all.
Usage: start.py MOED MOECTL MOE-MODEL"""
import os
import pty
import re
import signal
import sys
import time

import service
from tinygguf import EOS

TEXT = "the king in the house"
STEPS = 12


def resident(status):
    return status["cache"]["experts_resident"], status["cache"]["experts"]


def check_at_once(programs, daemon, moe, expected):
    """The first answer comes from whatever is there; it is the right one."""
    answer = daemon.ask(TEXT, "--raw", tokens=STEPS)
    service.equal(answer["ids"], expected, "tokens right after READY")
    service.wait_for(lambda: resident(daemon.status())[0] == resident(daemon.status())[1],
                     "not all experts come into memory")
    daemon.wait_log(r"all experts in memory after \d+\.\d+ s")
    status = daemon.status()
    start = status["start"]
    service.expect(start["dense_bytes"] > 0, f"no dense weights were read: {start}")
    service.expect(0 < start["dense_s"] <= start["memory_s"] <= start["ready_after_s"]
                   <= start["filled_after_s"], f"the phases of the start: {start}")
    service.wait_for(lambda: daemon.status()["taken_bytes"] == daemon.status()["arena_bytes"],
                     "not all memory is taken")
    service.equal(status["cache"]["resident_bytes"] > 0, True, "bytes of experts in memory")
    misses = status["cache"]["misses"]
    answer = daemon.ask(TEXT, "--raw", tokens=STEPS)
    service.equal(answer["ids"], expected, "tokens with all experts in memory")
    service.equal(daemon.status()["cache"]["misses"], misses, "misses with all in memory")
    text = daemon.moectl("status").stdout
    service.expect(re.search(r"experts_resident +\d+", text), f"status as text: {text}")


def work(pid):
    """Clock ticks and context switches of all threads."""
    ticks = switches = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii", errors="replace") as file:
            switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", file.read())))
    return ticks, switches


def check_idle(daemon, what):
    """Nothing runs, nothing wakes up; two looks, since something may have been left to do."""
    def is_quiet():
        before = work(daemon.process.pid)
        time.sleep(2)
        return work(daemon.process.pid) == before
    service.wait_for(is_quiet, f"{what}: the daemon works or wakes up")


def check_idle_client(daemon):
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(daemon.programs.moectl, ["moectl", "--socket", daemon.socket, "prompt"])
    service.wait_for(lambda: daemon.status()["sessions"].get("clients", 2) >= 2,
                     "moectl does not connect")
    check_idle(daemon, "with an idle client")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)


def check_little(programs, directory, moe, expected):
    """Where not all fit, the slots are filled all the same, and drained in the middle of it."""
    limit = programs.floor(moe) + (8 << 20)
    with service.Service(programs, directory, "--model", moe, "--memory", str(limit)) as daemon:
        answer = daemon.ask(TEXT, "--raw", tokens=STEPS)
        service.equal(answer["ids"], expected, "tokens in little memory")
        daemon.wait_log(r"slots filled after .*: \d+ of \d+ experts")
        status = daemon.status()
        have, of = resident(status)
        service.expect(0 < have < of, f"{have} of {of} experts in little memory")
        service.equal(daemon.stop(), 0, "exit status")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory, layers=8, hidden=512, ff=2048)
        moe = programs.upcycled(dense)
        expected = programs.greedy(dense, [programs.tokens(dense, TEXT)], STEPS)[0]
        expected = expected[:expected.index(EOS)] if EOS in expected else expected
        with service.Service(programs, directory, "--model", moe) as daemon:
            check_at_once(programs, daemon, moe, expected)
            check_idle(daemon, "alone")
            check_idle_client(daemon)
            service.equal(daemon.stop(), 0, "exit status")
        with service.Service(programs, directory, "--model", moe) as daemon:
            service.equal(daemon.stop(), 0, "exit status when stopped at once")
        check_little(programs, directory, moe, expected)
    service.verdict("3 starts")


main()
