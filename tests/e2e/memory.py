# SPDX-License-Identifier: MIT
"""The memory contract, measured by the kernel: a moed that streams experts in a control group of its
own never takes more than its limit, page cache included; and it finds the group's limit by itself.
Needs a writable memory controller (v1 or v2), else it is skipped.
Usage: memory.py MOED MOECTL MOE-MODEL"""
import os
import re
import sys

import service

MIB = 1 << 20


class Group:
    """A control group; its files have other names in v1 and v2."""
    def __init__(self):
        self.path = None
        for root, limit, peak, events in (
                (self.own("memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes",
                 "memory.failcnt"),
                (self.own(""), "memory.max", "memory.peak", "memory.events")):
            if not root:
                continue
            path = os.path.join(root, f"moed-test-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            if all(os.path.exists(os.path.join(path, name)) for name in (limit, peak, events)):
                self.path, self.limit, self.peak, self.events = path, limit, peak, events
                return
            os.rmdir(path)

    @staticmethod
    def own(controller):
        """The directory of this process in a hierarchy."""
        mounts = {}
        with open("/proc/self/mounts", encoding="utf-8") as file:
            for line in file:
                _, where, kind, options, *_ = line.split()
                if kind == "cgroup2":
                    mounts[""] = where
                elif kind == "cgroup" and controller in options.split(","):
                    mounts[controller] = where
        if controller not in mounts:
            return None
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                if controller in controllers.split(","):
                    # Inside of a container the path may be one of the outside.
                    inside = mounts[controller] + path
                    return inside if os.path.isdir(inside) else mounts[controller]
        return None

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.write(str(value))

    def read(self, name):
        with open(os.path.join(self.path, name), encoding="ascii") as file:
            return file.read()

    def wrap(self):
        return ["/bin/sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh"]

    def hits(self):
        """How often the limit was run into."""
        if self.events == "memory.failcnt":
            return int(self.read(self.events))
        return int(re.search(r"^max (\d+)", self.read(self.events), re.MULTILINE).group(1))

    def cache(self):
        text = self.read("memory.stat")
        return int(re.search(r"^(?:total_cache|file) (\d+)", text, re.MULTILINE).group(1))

    def close(self):
        os.rmdir(self.path)


def run(programs, directory, moe, limit, group_limit, options, what):
    group = Group()
    if not group.path:
        print("no control group can be made here")
        sys.exit(service.SKIP)
    try:
        group.write(group.limit, group_limit)
        with service.Service(programs, directory, "--model", moe, *options,
                             wrap=group.wrap()) as daemon:
            for text in ("the king " * 40, "in the thing", "a"):
                service.expect(daemon.ask(text, "--raw", tokens=24)["ids"], f"{what}: no answer")
            status = daemon.status()
            service.expect(status["budget"]["limit"] <= limit,
                           f"{what}: it believes in {status['budget']['limit']}, not {limit}")
            service.expect(status["cache"]["misses"] > status["cache"]["slots"],
                           f"{what}: nothing was evicted")
            locked = status["locked_bytes"] == status["arena_bytes"]
            # The peak is to be that of all memory, which comes after the start.
            service.wait_for(lambda: (lambda s: s["taken_bytes"] == s["arena_bytes"])(
                daemon.status()), f"{what}: not all memory is taken")
            cache = group.cache()
            service.equal(daemon.stop(), 0, f"{what}: exit status")
        peak = int(group.read(group.peak))
        print(f"{what}: limit {limit}, peak {peak} ({100 * peak / limit:.1f} %), page cache {cache},"
              f" {'locked' if locked else 'not locked'}, read by {status['io']['method']}")
        service.expect(peak <= limit, f"{what}: the peak {peak} is above {limit}")
        service.equal(group.hits(), 0, f"{what}: the kernel had to hold it back")
        service.expect(peak > limit // 2, f"{what}: {peak} of {limit}: is the group the right one?")
    finally:
        group.close()


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory, layers=4, hidden=512, ff=2048)
        moe = programs.upcycled(dense)
        floor = programs.floor(moe)
        limit = (floor // MIB + 8) * MIB
        size = os.path.getsize(moe)
        print(f"model {size}, least memory {floor}")
        run(programs, directory, moe, limit, 1 << 30, ["--memory", str(limit)], "--memory")
        run(programs, directory, moe, limit, limit, [], "the group's limit")
    service.verdict("2 groups")


main()
