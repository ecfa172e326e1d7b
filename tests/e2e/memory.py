# SPDX-License-Identifier: MIT
"""The memory contract, measured by the kernel: a moed that streams experts in a control group of its
own never takes more than its limit, page cache included; and it finds the group's limit by itself.
Needs a writable memory controller (v1 or v2), else it is skipped.
Usage: memory.py MOED MOECTL MOE-MODEL"""
import os
import sys

import service
from group import Group

MIB = 1 << 20


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
