# SPDX-License-Identifier: MIT
"""Memory that goes and comes while moed runs: an event of the service manager's trigger gives slots
back; a lower limit and SIGHUP give back what it takes, so that the control group's limit can follow;
answers stay the same.
Usage: budget.py MOED MOECTL MOE-MODEL"""
import os
import signal
import sys

import group
import service

MIB = 1 << 20
TEXT = "the king in the house"
STEPS = 12


def given(daemon):
    return daemon.status()["cache"]["given_back_bytes"]


def check_answer(daemon, expected, what):
    service.equal(daemon.ask(TEXT, "--raw", tokens=STEPS)["ids"], expected, what)


def check_handed(programs, directory, moe, expected):
    """An event gives a chunk back, and another one the next."""
    pipe = os.path.join(directory, "pressure")
    os.mkfifo(pipe)
    with service.Service(programs, directory, "--model", moe,
                         environment={"MEMORY_PRESSURE_WATCH": pipe}) as daemon:
        check_answer(daemon, expected, "before the pressure")
        have = given(daemon)
        service.equal(have, 0, "given back before the pressure")
        writer = os.open(pipe, os.O_WRONLY)
        for _ in range(2):
            os.write(writer, b"!")
            service.wait_for(lambda: given(daemon) > have, "nothing is given back")
            have = given(daemon)
            check_answer(daemon, expected, "under pressure")
        os.close(writer)
        daemon.wait_log(r"other programs lack memory: .* of the slots are given back")


def lower(daemon, limit):
    daemon.configure(f"memory:\n  limit: {limit}\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"reloaded: [01] options changed")


def check_lower(programs, directory, moe, expected):
    floor = programs.floor(moe)
    high, low = (floor // MIB + 24) * MIB, (floor // MIB + 14) * MIB
    cage = group.Group()
    config = f"memory:\n  limit: {high}\n"
    if cage.path:
        cage.write(cage.limit, high)
    try:
        with service.Service(programs, directory, "--model", moe, config=config,
                             wrap=cage.wrap() if cage.path else None) as daemon:
            service.wait_for(lambda: (lambda s: s["taken_bytes"] == s["arena_bytes"])(
                daemon.status()), "not all memory is taken")
            check_answer(daemon, expected, "before the limit is lower")
            slots = daemon.status()["cache"]["slots"]
            lower(daemon, low)
            service.wait_for(lambda: given(daemon) >= high - low, "too little is given back")
            daemon.wait_log(rf"the memory limit is .* \(memory.limit\) now: .* to be given back")
            daemon.wait_log(r"the memory limit is lower: .* of the slots are given back")
            if cage.path:
                cage.write(cage.limit, low)
            check_answer(daemon, expected, "with the lower limit")
            service.expect(daemon.status()["cache"]["slots"] < slots, "all slots are still there")
            # Less than works: as much as can be, and a warning that says what is needed.
            lower(daemon, floor // 2)
            daemon.wait_log("that is less than this model needs")
            check_answer(daemon, expected, "with a limit below the least")
            daemon.wait_log("restart moed")
            if cage.path:
                cage.write(cage.limit, 4 * high)
            lower(daemon, 2 * high)
            daemon.wait_log("more than at the start acts after a restart")
            check_answer(daemon, expected, "with a higher limit")
            service.equal(daemon.stop(), 0, "exit status")
        if cage.path:
            service.equal(cage.hits(), 0, "the kernel had to hold it back so often")
            print("in a control group:", cage.limit)
        else:
            print("without a control group: none can be made here")
    finally:
        if cage.path:
            cage.close()


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        moe = programs.upcycled(programs.dense(directory), experts=24)
        expected = programs.greedy(moe, [programs.tokens(moe, TEXT)], STEPS)[0]
        check_handed(programs, directory, moe, expected)
        check_lower(programs, directory, moe, expected)
    service.verdict("memory back and again")


main()
