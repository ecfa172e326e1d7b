# SPDX-License-Identifier: MIT
"""Runs one command and prints as JSON what it took: status, output, time, processor time, peak
memory, and how much of the processors others took meanwhile.
Usage: measure.py [--neighbour CPU] [--watch PID]... -- COMMAND..."""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


def machine_busy():
    """Seconds that all processors together were not idle, stolen time included."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    idle, waiting = fields[3:5]
    return (sum(fields) - idle - waiting) / TICK


def process_busy(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def spin(cpu):
    """A neighbour that always wants this processor."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {cpu})
        while os.getppid() == parent:
            for _ in range(100000):
                pass
        os._exit(0)
    return pid


def run(command, neighbour, watch):
    pid = None if neighbour is None else spin(neighbour)
    ours = [*watch, *([pid] if pid else [])]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start, busy = time.monotonic(), machine_busy()
        before = {one: process_busy(one) for one in ours}
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall, busy = time.monotonic() - start, machine_busy() - busy
            watched = {one: process_busy(one) - before[one] for one in ours}
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        own = usage.ru_utime + usage.ru_stime
        others = max(0.0, busy - own - sum(watched.values()))
        return {"status": child.returncode, "stdout": out.read().decode(errors="replace"),
                "stderr": err.read().decode(errors="replace")[-2000:], "wall_s": wall,
                "cpu_s": own, "watched_cpu_s": sum(watched[one] for one in watch),
                "max_rss_bytes": usage.ru_maxrss * 1024,
                "others_cpu_share": others / (wall * os.cpu_count())}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neighbour", type=int, metavar="CPU",
                        help="something else spins on this processor meanwhile")
    parser.add_argument("--watch", type=int, action="append", default=[], metavar="PID",
                        help="its processor time belongs to the command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.neighbour is not None and options.neighbour not in os.sched_getaffinity(0):
        parser.error(f"processor {options.neighbour} is not ours to use")
    try:
        print(json.dumps(run(options.command, options.neighbour, options.watch)))
    except OSError as error:
        sys.exit(f"measure: cannot run '{options.command[0]}': {error.strerror}")


if __name__ == "__main__":
    main()
