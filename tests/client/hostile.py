#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients that break every rule, after which moed answers others, and has leaked neither memory nor
descriptors.  Usage: hostile.py MOED MOE-MODEL; 77 where moed cannot run here."""

import array
import json
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time

import protocol as p
from daemon import Daemon, Skip
from protocol import Client, Gone, Refused

CHAOS = random.Random(4711)


def raw_socket(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(path)
    s.settimeout(20)
    return s


def send(s, data, fds=()):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        s.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        pass


def closed(s):
    """What came before the daemon closed the connection."""
    got = []
    while True:
        try:
            data = s.recv(4096)
        except ConnectionResetError:
            data = b""
        if not data:
            s.close()
            return got
        got.append(data)


def good_answer(path):
    c = Client(path)
    end = time.monotonic() + 20
    while True:
        try:
            tokens, done = c.answer(c.submit("the thing", max_tokens=2, flags=p.IGNORE_END))
            break
        except p.Failed as e:
            # What the dead had under way counts until the engine has let go of it.
            assert e.code == -122 and time.monotonic() < end, e
            time.sleep(0.05)
    assert done.generated == 2 and len(tokens) == 2
    c.close()


def test_greetings(path):
    h = p.hello()
    for packet in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", h[:31], h[:8], h + b"\0", b"\0" * 32,
                   h[:4] + struct.pack("<H", 3) + h[6:], h[:6] + struct.pack("<H", 33) + h[8:],
                   h[:12] + b"\1" + h[13:], h[:16] + b"\1" + h[17:], h[:31] + b"\1", os.urandom(32),
                   h * 60, struct.pack("<I", 0x31454F4E) + h[4:]):
        s = raw_socket(path)
        send(s, packet)
        if not packet:
            s.shutdown(socket.SHUT_WR)
        assert closed(s) == [], packet
    for major in (0, 2, 65535):
        s = raw_socket(path)
        send(s, p.hello(major))
        (answer,) = closed(s)
        code, length, ours = struct.unpack_from("<iIH", answer, 8)
        assert code == -93 and ours == 1 and length == len(answer) - 24
        assert b"1" in answer[24:] and str(major).encode() in answer[24:], answer[24:]
    s = raw_socket(path)  # a later minor is fine, and descriptors with it come to nothing
    with open(os.devnull) as null:
        send(s, p.hello(1, 9), [null.fileno()] * 10)
    answer = s.recv(4096)
    assert len(answer) == 136, answer
    s.close()
    s = raw_socket(path)
    send(s, h)
    send(s, h)  # twice: no bell
    assert [len(x) for x in closed(s)] in ([136], []), "greeted twice"


def test_bells(path):
    for packet in (b"\0", b"\2", b"\1\1", b"x" * 1000):
        c = Client(path)
        send(c.sock, packet)
        closed(c.sock)
        c.close()
    c = Client(path)
    for _ in range(3000):
        try:
            c.sock.send(b"\1", socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
    with open(os.devnull) as null:
        send(c.sock, b"\1", [null.fileno()] * 5)
    c.ping(3)
    c.close()


def record(size, kind, flags, number):
    return struct.pack("<IHHQ", size, kind, flags, number)


def expect_gone(c, what):
    try:
        c.sock.send(b"\1", socket.MSG_NOSIGNAL)
        while True:
            c.wait()
            while c.take():
                pass
    except (Gone, BrokenPipeError, ConnectionResetError):
        c.close()
        return
    except TimeoutError:
        pass
    raise AssertionError(f"not noticed: {what}")


def write_raw(c, data, head):
    """Bytes at the place of the next record, and any head."""
    _, offset, size = c.welcome.client
    at = offset + c.head % size
    data = data[:size - c.head % size]
    c.own_map[at:at + len(data)] = data
    c.own.store("head", head & (2 ** 64 - 1))


def test_indices(path):
    for head in (8, 1, 65536 * 64, 1 << 63, -16, -1, 1 << 32):
        c = Client(path, 20)
        c.ping()
        write_raw(c, b"", c.head + head)
        expect_gone(c, f"head {head}")
    for tail in (8, 1 << 40, 1 << 20, -48):
        c = Client(path, 20)
        c.ping()
        c.own.store("tail", (c.tail + tail) & (2 ** 64 - 1))
        # It is looked at when there seems to be no room.
        c.take = lambda: False
        try:
            for _ in range(c.welcome.daemon[2] // 32 + 2):
                c.put(p.PING, 6, struct.pack("<QII", 0, 0, 0))
        except Gone:
            pass
        # Nothing is taken, which would mend the tail before a slow daemon looks at it.
        closed(c.sock)
        c.close()


def test_records(path):
    for size in (0, 1, 15, 16385, 65536, 1 << 31, 0xFFFFFFFF, 0xFFFFFFF0):
        for kind in (p.PING, p.PAD):
            c = Client(path, 20)
            write_raw(c, record(size, kind, 0, 1), 65536)
            expect_gone(c, f"size {size}")
    for data, head in ((record(32, p.PING, 0, 1), 16), (record(17, p.PING, 0, 1), 16),
                       (record(16, p.STATUS, 1, 1), 16), (record(16, p.STATUS, 0, 0), 16),
                       (record(16, p.PAD, 0, 0), 16), (record(16384, p.PAD, 0, 0), 16384)):
        c = Client(path, 20)
        write_raw(c, data, head)
        expect_gone(c, (data, head))
    payloads = {p.SESSION_OPEN: 24, p.SESSION_CLOSE: 16, p.SESSION_FORGET: 16, p.SUBMIT: 72,
                p.SUBMIT_END: 0, p.CANCEL: 0, p.STATUS: 0, p.PING: 16, p.ADMIN: 8, p.EXPERTS: 0,
                p.TRACE: 8}
    for kind, size in payloads.items():
        for wrong in {0, size - 1, size + 1, size + 16, 16000} - {size, -1}:
            c = Client(path, 20)
            c.put(kind, 1, b"\0" * wrong)
            expect_gone(c, f"type {kind} with {wrong}")
    for kind in (13, 31, 32, 36, 41, 42, 43, 65535):
        c = Client(path, 20)
        c.put(kind, 1, b"\0" * 64)
        expect_gone(c, f"type {kind}")
    submit = struct.pack("<16sIIIIfffIQQQ", p.NO_SESSION, 1, 0, 1, 0, 0.0, 1.0, 0.0, 0, 0, 0, 0)
    for at, value in ((16, 0), (16, 4), (20, 32), (20, 1 << 31), (44, 1), (56, 1), (64, 1)):
        c = Client(path, 20)
        c.put(p.SUBMIT, 1, submit[:at] + struct.pack("<I", value) + submit[at + 4:])
        expect_gone(c, f"submit {at}={value}")
    for first, then in (((p.SUBMIT, submit), (p.SUBMIT, submit)),
                        ((p.SUBMIT, submit), (p.DATA, b"\0" * 7)),
                        ((p.SUBMIT, submit), (p.DATA, struct.pack("<II", 1, 0) + b"user")),
                        ((p.SUBMIT, submit), (p.DATA, struct.pack("<II", 3, 0) + b"1234")),
                        ((p.SUBMIT, submit), (p.DATA, struct.pack("<II", 9, 0))),
                        ((p.SUBMIT, submit), (p.DATA, struct.pack("<II", 2, 1))),
                        ((p.STATUS, b""), (p.PING, struct.pack("<QII", 0, 2, 0))),
                        ((p.STATUS, b""), (p.PING, struct.pack("<QII", 0, 0, 1))),
                        ((p.STATUS, b""), (p.ADMIN, struct.pack("<II", 3, 0))),
                        ((p.STATUS, b""), (p.TRACE, struct.pack("<II", 1, 0))),
                        ((p.STATUS, b""), (p.TRACE, struct.pack("<II", 0, 1))),
                        ((p.STATUS, b""), (p.SESSION_OPEN, b"\0" * 16 + b"\1" + b"\0" * 7))):
        c = Client(path, 20)
        c.put(first[0], 1, first[1])
        c.put(then[0], 1, then[1])
        expect_gone(c, (first, then))


def test_scribble(path):
    """Another thread writes all over the segment while the daemon reads it."""
    for _ in range(10):
        c = Client(path, 20)
        stop = threading.Event()
        _, offset, size = c.welcome.client

        def scribble():
            while not stop.is_set():
                at = offset + CHAOS.randrange(4096) // 16 * 16
                c.own_map[at:at + 16] = record(CHAOS.choice((16, 32, 48, 96, 16384, 0)),
                                               CHAOS.randrange(12), 0, CHAOS.randrange(4))

        thread = threading.Thread(target=scribble)
        thread.start()
        try:
            for i in range(300):
                c.head += CHAOS.choice((16, 32, 64, 96))
                c.own.store("head", c.head)
                c.sock.send(b"\1", socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                while c.take():
                    c.waiting.clear()
        except (OSError, Gone, AssertionError):
            pass
        stop.set()
        thread.join()
        c.close()
    c = Client(path, 20)  # the header, which the daemon never reads again
    c.own_map[0:128] = os.urandom(128)
    c.ping(1)
    c.close()


def test_killed(path):
    for i in range(12):
        pid = os.fork()
        if pid == 0:
            try:
                c = Client(path)
                while True:
                    s = c.session_open()[0]
                    c.submit("word " * 50, session=s, flags=p.IGNORE_END | p.WANT_LOGITS)
                    c.status()
                    c.get(c.number - 1)
            finally:
                os._exit(0)
        time.sleep(0.01 + i * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_never_reads(path, pid):
    """Its rings fill up in both directions; others go on, and nobody spins for it."""
    c = Client(path, 5)
    for _ in range(3):
        c.submit("the thing", flags=p.IGNORE_END | p.WANT_LOGITS)
    full = time.monotonic() + 0.5
    while time.monotonic() < full:  # no room for so long: nobody reads there any more
        if c.room(32):
            c.put(p.PING, 1 << 40, struct.pack("<QII", 0, 0, 0))
            full = time.monotonic() + 0.5
        else:
            time.sleep(0.01)
    for _ in range(3):
        good_answer(path)
    time.sleep(0.3)
    before = cpu_seconds(pid)
    time.sleep(1)
    used = cpu_seconds(pid) - before
    assert used < 0.5, f"{used} s of a second for a client that does not read"
    c.timeout = 30  # it reads again: everything is there
    for number in (1, 2, 3):
        c.cancel(number)
    for number in (1, 2, 3):
        assert c.done(number).finish == p.CANCELLED
    c.close()


def test_deaf_trace(path):
    """It loses whole tokens and is told how many; nobody waits for it, or for one that asked for
    its own routes and does not read: that waits, and loses none."""
    deaf, own, busy = Client(path), Client(path), Client(path)
    trace = deaf.trace()
    number = own.submit([5] * 250, max_tokens=0, flags=p.IGNORE_END | p.WANT_ROUTES)
    layers = len(json.loads(busy.experts())["layers"])
    sent, told = 0, 0
    while sent < 45000:
        numbers = [busy.submit([7 + i] * 250, max_tokens=1) for i in range(8)]
        for n in numbers:
            sent += busy.answer(n)[1].prompt_tokens
    good_answer(path)
    entries, told, lost = deaf.traced(trace)
    assert lost > 0 and told + lost >= sent, (told, lost, sent)
    assert len(entries) == told * layers
    whole = {}
    for e in entries:
        whole[e.turn, e.position] = whole.get((e.turn, e.position), 0) + 1
    assert set(whole.values()) == {layers}
    routes = []
    for kind, value in own.stream(number):
        if kind == p.ROUTES:
            routes += value
    assert len(routes) == (value.prompt_tokens + value.generated - 1) * layers
    # Those that go in the middle of it leave nothing behind.
    for _ in range(20):
        c = Client(path)
        try:
            c.trace()
        except p.Failed as e:  # the engine has not let go of the last one yet
            assert e.code in (-105, -122), e
        c.submit([5] * 200, max_tokens=5, flags=p.WANT_ROUTES)
        c.sock.close()
        c.close()
    for c in (deaf, own, busy):
        c.close()


def test_many(path, limit):
    for i in range(1000):
        s = raw_socket(path)
        if i % 3 == 0:
            send(s, p.hello())
        s.close()
    settled(path)  # those that have gone still count while their end is in the queue
    kept, refused = [], 0
    for _ in range(limit + 20):
        try:
            kept.append(Client(path))
        except Refused as e:
            assert e.code == -122 and str(limit) in e.text, e
            refused += 1
        except (Gone, ConnectionResetError, BrokenPipeError):
            refused += 1
    assert len(kept) == limit and refused == 20, (len(kept), refused)
    kept[0].ping()
    silent = kept.pop()
    silent.close()
    for c in kept:
        c.close()
    # Sessions and requests have their limits too.
    c = Client(path)
    sessions = []
    try:
        for _ in range(c.welcome.sessions_max + 1):
            sessions.append(c.session_open()[0])
    except p.Failed as e:
        assert e.code == -122, e
    assert len(sessions) == c.welcome.sessions_max
    for s in sessions:
        c.session_close(s, forget=True)
    numbers = [c.submit("x", flags=p.IGNORE_END) for _ in range(c.welcome.requests_max + 1)]
    try:
        c.answer(numbers[-1])
        raise AssertionError("no limit on requests")
    except p.Failed as e:
        assert e.code == -122, e
    c.close()


def usage(pid):
    """Descriptors and KiB; the least of half a second, since ends take their moment."""
    fds = []
    for _ in range(10):
        fds.append(len(os.listdir(f"/proc/{pid}/fd")))
        time.sleep(0.05)
    with open(f"/proc/{pid}/status") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return min(fds), rss


def settled(path):
    """What is left once the daemon has seen that all are gone."""
    end = time.monotonic() + 30
    while True:
        try:
            c = Client(path)
            status = json.loads(c.status())
            c.close()
            if status["queue"]["active"] + status["queue"]["waiting"] == 0 and \
                    status["sessions"]["clients"] == 1:
                break
        except (Refused, Gone, ConnectionResetError, BrokenPipeError):
            status = "refused"
        assert time.monotonic() < end, status
        time.sleep(0.05)


def main(moed, moe_model, folder):
    sanitized = bool(os.environ.get("ASAN_OPTIONS") or os.environ.get("TSAN_OPTIONS"))
    limit = 12
    with Daemon(moed, moe_model, folder, more=f"limits:\n  connections: {limit}\n") as d:
        pid = d.process.pid

        began = time.monotonic()

        def everything():
            for test in (test_greetings, test_bells, test_indices, test_records, test_scribble,
                         test_killed):
                test(d.socket)
                settled(d.socket)
                good_answer(d.socket)
                print(test.__name__, round(time.monotonic() - began, 2), flush=True)
            test_never_reads(d.socket, pid)
            test_deaf_trace(d.socket)
            print("test_deaf_trace", round(time.monotonic() - began, 2), flush=True)
            test_many(d.socket, limit)
            settled(d.socket)
            good_answer(d.socket)
            settled(d.socket)
            return usage(pid)

        first = everything()
        second = everything()
        assert second[0] == first[0], f"descriptors: {first} {second}"
        # The sanitizers keep what is freed.
        assert sanitized or second[1] - first[1] < 4096, f"memory: {first} {second}"


with tempfile.TemporaryDirectory(prefix="moed-test-") as tmp:
    try:
        main(sys.argv[1], sys.argv[2], tmp)
    except Skip as e:
        print(e)
        sys.exit(77)
print("ok")
