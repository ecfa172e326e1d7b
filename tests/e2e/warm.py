# SPDX-License-Identifier: MIT
"""What the cache of experts held is read first after a restart; a file that is damaged, of another
model or no file at all is said and not used.  The tokens are always the same.
Usage: warm.py MOED MOECTL MOE-MODEL"""
import os
import sys

import service

TEXT = "the king in the house"
STEPS = 12
USED = r"experts of the last run are read first"


def run(programs, directory, moe, limit, expected, log):
    with service.Service(programs, directory, "--model", moe, "--memory", str(limit)) as daemon:
        answer = daemon.ask(TEXT, "--raw", tokens=STEPS)
        service.equal(answer["ids"], expected, "tokens")
        if log:
            daemon.wait_log(log)
        else:
            service.expect("read first" not in daemon.log(), "a state that is not there is used")
        status = daemon.status()
        service.equal(daemon.stop(), 0, "exit status")
    return status


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory, layers=8, hidden=256, ff=512)
        moe = programs.upcycled(dense)
        other = programs.upcycled(programs.dense(directory, "other.gguf", layers=6, hidden=256,
                                                 ff=512))
        limit = programs.floor(moe) + (4 << 20)
        expected = programs.greedy(dense, [programs.tokens(dense, TEXT)], STEPS)[0]
        state = None
        run(programs, directory, moe, limit, expected, None)
        for folder, _, names in os.walk(directory):
            if "experts" in names:
                state = os.path.join(folder, "experts")
        service.expect(state, "no state of the cache is kept")
        service.equal(os.stat(state).st_mode & 0o777, 0o600, "mode of the file")
        service.expect(not os.path.exists(state + ".new"), "a file that was not finished is left")
        run(programs, directory, moe, limit, expected, USED)
        with open(state, "rb") as file:
            good = file.read()
        for at in (0, 8, 12, 30, 100, len(good) - 1):
            with open(state, "wb") as file:
                file.write(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1:])
            said = (r"of another model or version" if at == 8 else
                    r"does not begin as it should" if at == 0 else
                    r"another size|damaged|another model")
            run(programs, directory, moe, limit, expected, said)
        for damaged in (b"", good[:20], good[:-1], good + b"x"):
            with open(state, "wb") as file:
                file.write(damaged)
            run(programs, directory, moe, limit, expected, r"cannot read|another size")
        run(programs, directory, other, programs.floor(other) + (4 << 20),
            programs.greedy(os.path.join(directory, "other.gguf"),
                            [programs.tokens(dense, TEXT)], STEPS)[0], r"of another model")
    service.verdict("14 starts")


main()
