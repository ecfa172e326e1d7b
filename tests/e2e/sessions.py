# SPDX-License-Identifier: MIT
"""Sessions on disk: conversations outlive the daemon and the pool of keys and values, and say what
they say where nothing ever happens.  The files are damaged, cut, of another model, too large for
the quota or the disk: every time the answer is the same, and the status says why it took longer.
Usage: sessions.py MOED MOECTL MOE-MODEL"""
import os
import random
import re
import shutil
import sys
import threading
import time

import service

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "client"))
import protocol  # noqa: E402

N = 12
LONG = 150
# Files may not grow beyond 100 KiB: enough for all but a block.
FULL = ["/bin/sh", "-c", 'ulimit -f 200; exec "$@"', "sh"]
SMALL = "context: 512\nsessions: 8\n"  # a pool of eight blocks


def ids_of(tokens):
    return [token.id for token in tokens]


class Talk:
    """A conversation in ids: each turn is all that was said and something new."""
    def __init__(self, seed, turns=(150, 40, 90)):
        chosen = random.Random(seed)
        self.turns = [[chosen.randrange(3, 250) for _ in range(n)] for n in turns]
        self.session, self.said, self.answers, self.reused = None, [], [], []

    def turn(self, daemon, tokens=N):
        client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
        session, found, held = client.session_open(self.session or protocol.NO_SESSION)
        if self.session:
            service.expect(found == (session == self.session), "found, and another id")
        self.session, self.found, self.held = session, found, held
        prompt = self.said + self.turns[len(self.answers)]
        number = client.submit(prompt, session=session, flags=protocol.IGNORE_END, max_tokens=tokens)
        answer, done = client.answer(number)
        client.close()
        self.answers.append(ids_of(answer))
        self.said = prompt + self.answers[-1]
        self.reused.append(done.reused)
        return done

    def forget(self, daemon):
        client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
        client.session_open(self.session)
        client.session_close(self.session, forget=True)
        client.close()


def wanted(daemon, seeds, tokens=N, **shape):
    """What the conversations say in a daemon where nothing happens."""
    talks = [Talk(seed, **shape) for seed in seeds]
    for talk in talks:
        for _ in talk.turns:
            talk.turn(daemon, tokens)
    return [talk.answers for talk in talks]


def together(daemon, talks, tokens=N):
    """The next turn of all of them at once."""
    threads = [threading.Thread(target=talk.turn, args=(daemon, tokens)) for talk in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(service.PATIENCE)


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


def check_eviction(programs, directory, model, answers):
    """By turns in a pool that holds one of them: each gives way, and comes back."""
    with service.Service(programs, directory, "--model", model, config=SMALL) as daemon:
        talks = [Talk(seed) for seed in range(1, 7)]
        for turn in range(3):
            for talk in talks:
                before = len(talk.said)
                talk.turn(daemon)
                if turn:
                    service.equal(talk.reused[-1], before - 1, f"turn {turn}: tokens reused")
        service.equal([talk.answers for talk in talks], answers, "answers by turns")
        d = disk(daemon)
        service.expect(d["saved"] >= 12 and d["restored"] >= 10, f"by turns: {d}")
        service.equal(sum(d["refused"].values()), 0, "refused")
        service.equal(d["bytes"], sum(os.path.getsize(path) for path in files(daemon)), "bytes")
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)


def check_preempted(programs, directory, model, answers, config="", spilled=True, wrap=None):
    """Eight long answers at once in a pool for three: those that give their place up go on."""
    with service.Service(programs, directory, "--model", model, config=SMALL + config,
                         wrap=wrap) as daemon:
        talks = [Talk(seed, turns=(60,)) for seed in range(11, 19)]
        together(daemon, talks, LONG)
        service.equal([talk.answers for talk in talks], answers, f"preempted, {config or 'spilled'}")
        status = daemon.status()
        d = status["disk"]
        service.expect(status["kv"]["preemptions"] > 0, f"nobody was preempted: {status['kv']}")
        if spilled:
            service.expect(d["preempted"] > 0 and d["resumed"] > 0, f"not by the disk: {d}")
            # What was computed twice is less than half a block each time, at most what was not yet
            # worth a file.
            rows = status["engine"]["rows_bulk"] + status["engine"]["rows_live"]
            service.expect(rows < 8 * (60 + LONG) + 64 * status["kv"]["preemptions"],
                           f"{rows} rows, {status['kv']}")
        else:
            service.equal(d["resumed"], 0, f"{config}: resumed")
        service.equal(daemon.stop(), 0, "exit status")
        done = d
    clear(directory)
    return done


def check_kinship(programs, directory, model):
    """A prompt that begins as another session of the user does: from memory, and from disk."""
    with service.Service(programs, directory, "--model", model) as daemon:
        first, second, third = Talk(21), Talk(21), Talk(21)
        second.turns = [first.turns[0][:130] + [7] * 20, *first.turns[1:]]
        third.turns = [first.turns[0][:130] + [9] * 20, *first.turns[1:]]
        first.turn(daemon)
        service.equal(second.turn(daemon).reused, 130, "shared with another session")
        service.equal(daemon.status()["tokens"]["shared"], 130, "shared tokens")
        first.turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
        daemon.start()
        # From disk whole blocks, where the text goes on otherwise.
        service.equal(third.turn(daemon).reused, 128, "from another session's file")
        second.turn(daemon)
        for talk in (first, second, third):
            while len(talk.answers) < 3:
                talk.turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)
    with service.Service(programs, directory, "--model", model,
                         config="sessions-on-disk: 0\n") as daemon:
        for talk in (first, second, third):
            alone = Talk(21)
            alone.turns = talk.turns
            for _ in range(3):
                client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
                prompt = alone.said + alone.turns[len(alone.answers)]
                tokens, done = client.answer(client.submit(prompt, flags=protocol.IGNORE_END,
                                                           max_tokens=N))
                service.equal(done.reused, 0, "what a request without a session leaves behind")
                client.close()
                alone.answers.append(ids_of(tokens))
                alone.said = prompt + alone.answers[-1]
            service.equal(talk.answers, alone.answers, "answers of relatives")
        service.equal(daemon.stop(), 0, "exit status")


def check_users(programs, directory, model):
    """What one user said is of no help to another, in memory or on disk."""
    if os.geteuid():
        print("not root: nobody else to be: not tried")
        return
    os.chmod(directory, 0o755)
    with service.Service(programs, directory, "--model", model,
                         config="socket-mode: 0666\n") as daemon:
        for restarted in (False, True):
            if not restarted:
                mine = Talk(31)
                mine.turn(daemon)
            else:
                service.equal(daemon.stop(), 0, "exit status")
                daemon.start()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.setgroups([])
                    os.setgid(65534 - restarted)
                    os.setuid(65534 - restarted)
                    client = protocol.Client(daemon.socket, timeout=service.PATIENCE)
                    session, found, _ = client.session_open(mine.session)
                    number = client.submit(Talk(31).turns[0], session=session, max_tokens=2)
                    reused = client.answer(number)[1].reused
                    code = 0 if not found and session != mine.session and not reused else 2
                finally:
                    os._exit(code)
            service.equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0,
                          f"another user, {'after a restart' if restarted else 'in memory'}")
        service.expect(mine.turn(daemon).reused > 100, "its own user")
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)


def damaged(path, how):
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if how == "cut":
            file.truncate(size * 2 // 3)
            return
        if how == "empty":
            file.truncate(0)
            return
        file.seek({"head": 20, "tokens": 4100, "table": 8193, "body": size - 200000}[how])
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))


def check_damaged(programs, directory, model, answers):
    """A damaged file is set aside and said; the conversation goes on, and the next one works."""
    with service.Service(programs, directory, "--model", model) as daemon:
        for how in ("head", "tokens", "table", "body", "cut", "empty"):
            talk = Talk(1)
            talk.turn(daemon)
            service.equal(daemon.stop(), 0, "exit status")
            damaged(files(daemon)[0], how)
            daemon.start()
            done = talk.turn(daemon)
            service.equal(done.reused, 0, f"{how}: reused")
            d = disk(daemon)
            service.equal((d["refused"]["damaged"], d["restored"]), (1, 0), f"{how}: {d}")
            service.equal(len(files(daemon, ".bad")), 1, f"{how}: files set aside")
            service.expect("is set aside" in daemon.log(), f"{how}: the log says nothing")
            service.equal(daemon.stop(), 0, "exit status")
            daemon.start()
            service.expect(talk.turn(daemon).reused > 0, f"{how}: the next one")
            service.equal(talk.answers, answers[0], f"{how}: answers")
            service.equal(daemon.stop(), 0, "exit status")
            clear(directory)
            daemon.start()
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)


def check_other_model(programs, directory, model, answers):
    """Another model's files are left alone, and are there when it comes back."""
    other = os.path.join(directory, "other.gguf")
    shutil.copy(model, other)
    with service.Service(programs, directory, "--model", model) as daemon:
        talk = Talk(1)
        talk.turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
        with service.Service(programs, directory, "--model", other) as second:
            d = disk(second)
            service.equal((d["sessions"], d["refused"]["other_model"]), (0, 1), "another model")
            client = protocol.Client(second.socket, timeout=service.PATIENCE)
            service.expect(not client.session_open(talk.session)[1], "another model's session")
            client.close()
            service.equal(second.stop(), 0, "exit status")
        daemon.start()
        while len(talk.answers) < 3:
            service.expect(talk.turn(daemon).reused > 0, "the model is back, its session is not")
        service.equal(talk.answers, answers[0], "answers")
        service.equal(daemon.stop(), 0, "exit status")
    os.unlink(other)
    clear(directory)


def check_quota(programs, directory, model, answers):
    """The oldest go first, and never is there more than the quota."""
    with service.Service(programs, directory, "--model", model) as daemon:
        Talk(1).turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
        one = os.path.getsize(files(daemon)[0])
        clear(directory)
    with service.Service(programs, directory, "--model", model,
                         config=f"sessions-on-disk: {3 * one + 100}\n") as daemon:
        talks = [Talk(seed) for seed in range(1, 6)]
        for talk in talks:
            talk.turn(daemon)
        service.equal(daemon.stop(), 0, "exit status")
        have = sum(os.path.getsize(path) for path in files(daemon))
        service.expect(have <= 3 * one + 100, f"{have} bytes of {3 * one + 100}")
        daemon.start()
        reused = [talk.turn(daemon).reused for talk in talks[::-1]][::-1]
        service.equal([n > 0 for n in reused], [False, False, True, True, True], "who comes back")
        service.equal([talk.answers[:2] for talk in talks], [a[:2] for a in answers[:5]], "answers")
        service.equal(daemon.stop(), 0, "exit status")
        daemon.configure("sessions-on-disk: 0\n")
        daemon.start()
        service.equal(files(daemon), [], "files after sessions-on-disk: 0")
        service.equal(daemon.stop(), 0, "exit status")
        clear(directory)
    with service.Service(programs, directory, "--model", model, config="sessions-on-disk: 4K\n") \
            as daemon:
        talk = Talk(1)
        for _ in range(3):
            talk.turn(daemon)
        service.equal(talk.answers, answers[0], "answers with a quota for nothing")
        service.equal(daemon.stop(), 0, "exit status")
        service.equal(files(daemon), [], "files with a quota for nothing")
    clear(directory)


def check_full(programs, directory, model, answers):
    """A file that may not grow stands for a full disk: said once, and all goes on."""
    with service.Service(programs, directory, "--model", model, config=SMALL,
                         wrap=FULL) as daemon:
        talks = [Talk(seed) for seed in range(1, 5)]
        for turn in range(3):
            for talk in talks:
                talk.turn(daemon)
        service.equal([talk.answers for talk in talks], answers[:4], "answers with a full disk")
        d = disk(daemon)
        service.equal((d["refused"]["disk_full"], d["resting"], d["bytes"], d["saved"]),
                      (1, True, 0, 0), "a full disk")
        service.expect(re.search("cannot write the state file.*60 s", daemon.log()),
                       "a full disk, unsaid")
        service.equal(files(daemon, ""), [], "what a full disk leaves behind")
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)
    # A folder that is none.
    with open(os.path.join(directory, "sessions"), "w", encoding="ascii"):
        pass
    with service.Service(programs, directory, "--model", model, config=SMALL) as daemon:
        talk = Talk(1)
        for _ in range(3):
            talk.turn(daemon)
        service.equal(talk.answers, answers[0], "answers without a folder")
        service.expect("sessions stay in memory" in daemon.log(), "no folder, unsaid")
        service.equal(daemon.stop(), 0, "exit status")
    os.unlink(os.path.join(directory, "sessions"))


def check_killed(programs, directory, model, answers):
    """kill -9 while sessions come and go: whatever is left is right or not there."""
    chosen = random.Random(5)
    found = 0
    with service.Service(programs, directory, "--model", model, config=SMALL) as daemon:
        talks = [Talk(seed) for seed in range(1, 7)]
        for turn in range(3):
            for i, talk in enumerate(talks):
                talk.turn(daemon)
                found += talk.reused[-1] > 0 and turn > 0
                if i % 2:
                    # The next one's positions push others out; the end comes somewhere in it.
                    child = threading.Thread(target=lambda: Talk(99).turn(daemon), daemon=True)
                    threading.excepthook = lambda arguments: None
                    child.start()
                    time.sleep(chosen.random() * 0.05)
                    daemon.process.kill()
                    daemon.process.wait()
                    daemon.start()
                    service.equal(disk(daemon)["refused"]["damaged"], 0, "damaged by kill -9")
                    service.equal([p for p in files(daemon, "") if not p.endswith(".kv")], [],
                                  "left by kill -9")
        service.equal([talk.answers for talk in talks], answers, "answers across kill -9")
        service.expect(found > 0, "nothing ever came back")
        service.equal(daemon.stop(), 0, "exit status")
    clear(directory)


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        model = programs.upcycled(programs.dense(directory))
        with service.Service(programs, directory, "--model", model,
                             config="sessions-on-disk: 0\n") as daemon:
            answers = wanted(daemon, range(1, 7))
            long = wanted(daemon, range(11, 19), LONG, turns=(60,))
            service.equal(disk(daemon)["quota_bytes"], 0, "a quota of 0")
            service.equal(daemon.stop(), 0, "exit status")
            service.expect(not os.path.exists(os.path.join(directory, "sessions")),
                           "a folder where nothing is to be kept")
        check_restart(programs, directory, model, answers)
        check_eviction(programs, directory, model, answers)
        check_preempted(programs, directory, model, long)
        check_preempted(programs, directory, model, long, "sessions-on-disk: 0\n", spilled=False)
        full = check_preempted(programs, directory, model, long, "log: info\n", spilled=False,
                               wrap=FULL)
        service.expect(full["refused"]["disk_full"] > 0, f"the disk was not full: {full}")
        check_kinship(programs, directory, model)
        check_users(programs, directory, model)
        check_damaged(programs, directory, model, answers)
        check_other_model(programs, directory, model, answers)
        check_quota(programs, directory, model, answers)
        check_full(programs, directory, model, answers)
        check_killed(programs, directory, model, answers)
    service.verdict("sessions")


main()
