# SPDX-License-Identifier: MIT
"""Sessions on disk: conversations outlive the daemon and the pool of keys and values, and say what
they say where nothing ever happens.  The files are damaged, cut, of another model, too large for
the quota or the disk: every time the answer is the same, and the status says why it took longer.
Usage: sessions.py MOED MOECTL MOE-MODEL"""
import json
import os
import random
import re
import resource
import shutil
import sys
import time

import service

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "client"))
import protocol  # noqa: E402

N = 12
WORDS = ["the", "king", "thing", "in", "other", "thin", "sing", "and", "a", "ring"]


def ids_of(tokens):
    return [token.id for token in tokens]


def text(n, seed):
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(n))


class Talk:
    """A conversation in ids: each turn is all that was said and something new."""
    def __init__(self, seed, turns=(150, 40, 90)):
        chosen = random.Random(seed)
        self.turns = [[chosen.randrange(3, 250) for _ in range(n)] for n in turns]
        self.session, self.said, self.answers, self.reused = None, [], [], []

    def turn(self, daemon):
        client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
        session, found, held = client.session_open(self.session or protocol.NO_SESSION)
        if self.session:
            service.expect(found == (session == self.session), "found, and another id")
        self.session, self.found, self.held = session, found, held
        prompt = self.said + self.turns[len(self.answers)]
        number = client.submit(prompt, session=session, flags=protocol.IGNORE_END, max_tokens=N)
        tokens, done = client.answer(number)
        client.close()
        self.answers.append(ids_of(tokens))
        self.said = prompt + self.answers[-1]
        self.reused.append(done.reused)
        return done

    def forget(self, daemon):
        client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
        client.session_open(self.session)
        client.session_close(self.session, forget=True)
        client.close()


def wanted(daemon, seeds, **shape):
    """What the conversations say in a daemon where nothing happens."""
    talks = [Talk(seed, **shape) for seed in seeds]
    for talk in talks:
        for _ in talk.turns:
            talk.turn(daemon)
    return [talk.answers for talk in talks]


def files(daemon, end=".kv"):
    folder = os.path.join(daemon.directory, "sessions")
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(end))


def clear(directory):
    shutil.rmtree(os.path.join(directory, "sessions"), ignore_errors=True)


def disk(daemon):
    return daemon.status()["disk"]


def check_restart(programs, directory, model, answers):
    """The next turn after a restart computes what is new, and says the same."""
    with service.Service(programs, directory, "--model", model) as daemon:
        talk = Talk(1)
        talk.turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
        service.equal(len(files(daemon)), 1, "files after the end")
        service.equal(os.stat(files(daemon)[0]).st_mode & 0o777, 0o600, "mode of the file")
        service.equal(os.stat(os.path.dirname(files(daemon)[0])).st_mode & 0o777, 0o700,
                      "mode of the folder")
        for turn in (1, 2):
            daemon.start()
            before = len(talk.said)
            done = talk.turn(daemon)
            service.expect(talk.found, f"turn {turn}: the session is not found after a restart")
            service.equal(talk.held, before - 1, f"turn {turn}: positions held")
            service.equal(done.reused, before - 1, f"turn {turn}: tokens reused")
            status = daemon.status()
            service.equal((status["disk"]["restored"], status["disk"]["restored_tokens"],
                           status["tokens"]["reused"]), (1, before - 1, before - 1),
                          f"turn {turn}: restored")
            service.expect(status["engine"]["rows_bulk"] + status["engine"]["rows_live"]
                           <= len(talk.said) - before + 2, f"turn {turn}: computed again")
            if turn == 1:
                service.equal(daemon.stop(), 0, "exit status")
        service.equal(talk.answers, answers[0], "answers across restarts")
        service.equal(disk(daemon)["sessions"], 1, "sessions on disk")
        talk.forget(daemon)
        service.wait_for(lambda: disk(daemon)["sessions"] == 0, "the session is not forgotten")
        service.wait_for(lambda: not files(daemon), "its file is left behind")
        service.equal(daemon.stop(), 0, "exit status")
        service.equal(files(daemon), [], "files of a session that was forgotten")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        model = programs.upcycled(programs.dense(directory))
        with service.Service(programs, directory, "--model", model,
                             config="sessions-on-disk: 0\n") as daemon:
            answers = wanted(daemon, range(1, 7))
            service.equal(disk(daemon)["quota_bytes"], 0, "a quota of 0")
            service.equal(daemon.stop(), 0, "exit status")
            service.expect(not os.path.exists(os.path.join(directory, "sessions")),
                           "a folder where nothing is to be kept")
        check_restart(programs, directory, model, answers)
    service.verdict("sessions")


main()
