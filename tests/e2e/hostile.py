# SPDX-License-Identifier: MIT
"""Clients that break every rule of docs/PROTOCOL.md against the real moed.  After each kind the
daemon still answers as before, and in the end it has leaked neither memory nor descriptors.
Usage: hostile.py MOED MOE-MODEL [SECONDS]"""
import array
import ctypes
import json
import mmap
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import tinygguf

MOED, MOE_MODEL = sys.argv[1:3]
# How long it scribbles and kills.
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
MAGIC = 0x31454F4D
HELLO, LOADING, WELCOME, REFUSED = 1, 2, 3, 4
(PAD, SESSION_OPEN, SESSION_CLOSE, SESSION_FORGET, SUBMIT, DATA, SUBMIT_END, CANCEL, STATUS, PING,
 ADMIN) = range(11)
SESSION, OK, ACCEPTED, PROGRESS, TOKEN, LOGITS, DONE, ERROR, STATUS_PIECE, PONG = range(32, 42)
HEAD, TAIL, SLEEP_EMPTY, SLEEP_FULL = 128, 256, 384, 512
ALL_IDS = 3
IGNORE_EOS = 8
faults = []
rng = random.Random(7)


def expect(condition, text):
    if not condition:
        faults.append(text)
        print("FAULT:", text, flush=True)


def hello(major=1, minor=0, flags=0, reserved=(0, 0), magic=MAGIC, kind=HELLO, size=32):
    return struct.pack("<IHHHHIQQ", magic, kind, size, major, minor, flags, *reserved)


class Gone(Exception):
    """The daemon has closed the connection."""


class Client:
    """Enough of a client to break the rules with: no rule is checked here."""

    def __init__(self, path, greet=True):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)
        self.sock.settimeout(20)
        self.maps = []
        if greet:
            self.sock.send(hello())
            self.welcome()

    def welcome(self):
        while True:
            packet, control, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(8))
            if not packet:
                raise Gone
            kind = struct.unpack_from("<H", packet, 4)[0]
            if kind == LOADING:
                continue
            if kind != WELCOME:
                raise Gone(packet[24:].decode())
            break
        fds = array.array("i")
        for level, what, data in control:
            if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
                fds.frombytes(data)
        mine, theirs = struct.unpack_from("<QII", packet, 16), struct.unpack_from("<QII", packet, 32)
        self.fds = list(fds)
        self.mine = mmap.mmap(fds[0], mine[0])
        self.theirs = mmap.mmap(fds[1], theirs[0], prot=mmap.PROT_READ)
        self.maps = [self.mine, self.theirs]
        self.ring, self.size = mine[1], mine[2]
        self.their_ring, self.their_size = theirs[1], theirs[2]
        self.head = self.tail = self.sleeps = 0

    def put(self, data):
        """Bytes into the ring, at the head; not yet seen."""
        for i, byte in enumerate(data):
            self.mine[self.ring + (self.head + i) % self.size] = byte

    def publish(self, head, bell=True):
        struct.pack_into("<Q", self.mine, HEAD, head % (1 << 64))
        if bell:
            try:
                self.bell()
            except Gone:
                pass  # It saw the head before the bell; whoever asks learns that it has gone.

    def bell(self, data=b"\x01"):
        try:
            self.sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Gone from error

    def room(self, n):
        """Waits until the daemon has read enough."""
        end = time.monotonic() + 20
        while self.head + n - struct.unpack_from("<Q", self.theirs, TAIL)[0] > self.size:
            self.bell()
            time.sleep(0.001)
            if time.monotonic() > end:
                raise Gone("the daemon does not read")

    def record(self, kind, request=1, payload=b"", flags=0, size=None, bell=True):
        whole = 16 + len(payload)
        space = (whole + 15) // 16 * 16
        self.room(2 * space)
        left = self.size - self.head % self.size
        if left < space:
            self.put(struct.pack("<IHHQ", left, PAD, 0, 0))
            self.head += left
        self.put(struct.pack("<IHHQ", whole if size is None else size, kind, flags, request)
                 + payload)
        self.head += space
        self.publish(self.head, bell)

    def read(self, timeout=20.0):
        """The next record: kind, request, payload; None where none comes in time."""
        end = time.monotonic() + timeout
        while True:
            head = struct.unpack_from("<Q", self.theirs, HEAD)[0]
            if head != self.tail:
                at = self.their_ring + self.tail % self.their_size
                size, kind, _, request = struct.unpack_from("<IHHQ", self.theirs, at)
                payload = self.theirs[at + 16:at + size]
                self.tail += (size + 15) // 16 * 16
                struct.pack_into("<Q", self.mine, TAIL, self.tail)
                if struct.unpack_from("<I", self.theirs, SLEEP_FULL)[0]:
                    self.bell()
                if kind != PAD:
                    return kind, request, payload
                continue
            self.sleeps = self.sleeps % 0xFFFFFFFF + 1
            struct.pack_into("<I", self.mine, SLEEP_EMPTY, self.sleeps)
            if struct.unpack_from("<Q", self.theirs, HEAD)[0] != self.tail:
                continue
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                return None
            try:
                if not self.sock.recv(16):
                    raise Gone
            except OSError as error:
                raise Gone from error

    def is_gone(self, timeout=10.0):
        """True: the daemon ends the connection in time."""
        end = time.monotonic() + timeout
        try:
            while time.monotonic() < end:
                if self.read(end - time.monotonic()) is None:
                    return False
        except Gone:
            return True
        return False

    def submit(self, request, ids, n, flags=0, bell=True):
        self.record(SUBMIT, request, submit(n, flags), bell=False)
        self.record(DATA, request, struct.pack("<II", 3, 0) + struct.pack(f"<{len(ids)}I", *ids),
                    bell=False)
        self.record(SUBMIT_END, request, bell=bell)

    def answer(self, request):
        """Tokens of a request, and what ended it."""
        tokens = []
        while True:
            record = self.read()
            if record is None:
                return tokens, None
            kind, of, payload = record
            if of != request:
                continue
            if kind == TOKEN:
                tokens.append(struct.unpack_from("<I", payload)[0])
            if kind == DONE:
                return tokens, struct.unpack_from("<I", payload)[0]
            if kind == ERROR:
                return tokens, payload[8:].decode()

    def status(self):
        self.record(STATUS, 77)
        text = b""
        while True:
            record = self.read()
            if record is None:
                return None
            kind, _, payload = record
            if kind == STATUS_PIECE:
                text += payload[8:]
                if len(text) == struct.unpack_from("<I", payload, 4)[0]:
                    return json.loads(text)

    def close(self):
        for one in self.maps:
            one.close()
        for fd in self.fds if self.maps else []:
            os.close(fd)
        self.maps = []
        self.sock.close()


def submit(n, flags=0, mode=ALL_IDS, temperature=0.0, top_p=1.0, min_p=0.0, top_k=0, reserved=0,
           reserved2=(0, 0), session=bytes(16)):
    return session + struct.pack("<IIIIfffIQQQ", mode, flags, n, top_k, temperature, top_p, min_p,
                                 reserved, 0, *reserved2)


class Daemon:
    def __init__(self, folder):
        dense, self.model = os.path.join(folder, "dense.gguf"), os.path.join(folder, "moe.gguf")
        self.vocabulary = tinygguf.write(dense, layers=4, hidden=256, heads=4, kv_heads=2, ff=512)
        subprocess.run([MOE_MODEL, "upcycle", dense, self.model, "--experts", "8", "--top-k", "2",
                        "--router", "exact"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        self.path = os.path.join(folder, "moed.sock")
        self.log = open(os.path.join(folder, "log"), "w+", encoding="utf-8")
        config = os.path.join(folder, "moed.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("limits:\n  connections: 24\n  requests: 30\n  sessions: 40\n")
        self.process = subprocess.Popen(
            [MOED, "--config", config, "--model", self.model, "--memory", "64M", "--socket",
             self.path, "--state", os.path.join(folder, "state"), "--threads", "2"],
            stderr=self.log, stdin=subprocess.DEVNULL)
        for _ in range(600):
            if os.path.exists(self.path) or self.process.poll() is not None:
                break
            time.sleep(0.05)

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def has_fds(self, n):
        """What was closed here is noticed there a little later."""
        for _ in range(200):
            if self.fds() == n:
                return True
            time.sleep(0.02)
        return False

    def memory(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def client(self, greet=True):
        """A connection; where greeted, once the daemon has noticed that earlier ones are closed."""
        for _ in range(500):
            try:
                return Client(self.path, greet)
            except (Gone, ConnectionError):
                time.sleep(0.02)
        raise Gone("nobody is welcomed any more")

    def says(self):
        """What it answers to the prompt of all checks; also proof that it lives."""
        client = self.client()
        client.submit(5, PROMPT, 12, IGNORE_EOS)
        tokens, finish = client.answer(5)
        client.close()
        return tokens, finish

    def settled(self):
        """Its figures once what earlier clients left is gone."""
        for _ in range(200):
            client = self.client()
            status = client.status()
            client.close()
            if (status["sessions"]["clients"] == 1 and status["sessions"]["all"] <= 40
                    and status["kv"]["free"] == status["kv"]["positions"]
                    and not status["queue"]["waiting"] + status["queue"]["active"]):
                return status
            time.sleep(0.05)
        return status


PROMPT = [3 + (5 * i) % 250 for i in range(40)]


def bad_hellos(daemon):
    packets = {
        "nothing of sense": rng.randbytes(32),
        "one byte": b"\x01",
        "too long": hello() + b"\0" * 4000,
        "another magic": hello(magic=1),
        "another type": hello(kind=WELCOME),
        "a size that is not its own": hello(size=31),
        "cut off": hello()[:20],
        "flags": hello(flags=1),
        "reserved bits": hello(reserved=(0, 1 << 63)),
    }
    for name, packet in packets.items():
        client = daemon.client(greet=False)
        client.sock.send(packet)
        try:
            expect(client.sock.recv(4096) == b"", f"a greeting with {name} is answered")
        except ConnectionResetError:
            pass
        client.close()
    client = daemon.client(greet=False)
    client.sock.send(hello(major=9))
    answer = client.sock.recv(4096)
    kind, = struct.unpack_from("<H", answer, 4)
    major, = struct.unpack_from("<H", answer, 16)
    expect(kind == REFUSED and major == 1, f"another major gets {answer}")
    client.close()
    # Descriptors with it are thrown away by the kernel: nothing receives them.
    client = daemon.client(greet=False)
    with open(os.devnull, "rb") as null:
        socket.send_fds(client.sock, [hello(minor=7)], [null.fileno()] * 8)
    client.welcome()
    expect(daemon.has_fds(daemon.alone + 1), "descriptors that came with a greeting were kept")
    client.close()
    # Twice; and before the welcome there is nothing to say.
    client = daemon.client(greet=False)
    client.sock.send(hello())
    client.sock.send(hello())
    try:
        client.welcome()
        expect(client.is_gone(), "a second greeting is accepted")
    except Gone:
        pass
    client.close()


def segments(daemon):
    """What the client may not do with what it was given."""
    client = daemon.client()
    for fd in client.fds:
        for what in (lambda f: os.ftruncate(f, 0), lambda f: os.ftruncate(f, 1 << 20)):
            try:
                what(fd)
                expect(False, "a segment can be resized")
            except OSError:
                pass
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    address = libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED,
                        client.fds[1], 0)
    expect(address == ctypes.c_void_p(-1).value, "the daemon's segment can be mapped for writing")
    try:
        os.pwrite(client.fds[1], b"x", 0)
        expect(False, "the daemon's segment can be written")
    except OSError:
        pass
    client.close()


def pings(client, n):
    for i in range(n):
        client.record(PING, 1, bytes(16), bell=not i % 64)


def indices(daemon):
    heads = {
        "a head beyond the ring": lambda c: c.publish(c.size + 16),
        "a head that is no multiple of 16": lambda c: c.publish(8),
        "a head far away": lambda c: c.publish((1 << 64) - 16),
        # The daemon looks at the tail when it needs room.
        "a tail ahead of what was written": lambda c: (
            struct.pack_into("<Q", c.mine, TAIL, 1 << 20), pings(c, 4000)),
        "a tail that goes back": lambda c: (
            struct.pack_into("<Q", c.mine, TAIL, (1 << 64) - 4096), pings(c, 4000)),
    }
    for name, act in heads.items():
        client = daemon.client()
        try:
            act(client)
            expect(client.is_gone(), f"{name} is accepted")
        except Gone:
            pass
        client.close()
    # A head that goes back, after a record that was answered.
    client = daemon.client()
    client.record(PING, 1, bytes(16))
    expect(client.read()[0] == PONG, "a ping has no answer")
    client.publish(0)
    expect(client.is_gone(), "a head that goes back is accepted")
    client.close()


def sizes(daemon):
    for size in (0, 1, 15, 17, 1 << 14, (1 << 14) + 1, 1 << 16, 1 << 31, (1 << 32) - 1):
        client = daemon.client()
        client.record(PING, 1, bytes(16), size=size)
        expect(client.is_gone(), f"a record of {size} bytes is accepted")
        client.close()
    payloads = {SESSION_OPEN: 24, SESSION_CLOSE: 16, SESSION_FORGET: 16, SUBMIT: 72, SUBMIT_END: 0,
                CANCEL: 0, STATUS: 0, PING: 16, ADMIN: 8}
    for kind, right in payloads.items():
        for wrong in {max(right - 1, 0), right + 1, right + 16} - {right}:
            client = daemon.client()
            client.record(kind, 1, bytes(wrong))
            expect(client.is_gone(), f"type {kind} with {wrong} bytes is accepted")
            client.close()


def records(daemon):
    good = submit(4)
    rows = {
        "type 11": (11, 1, b""), "type 0xffff": (0xFFFF, 1, b""),
        "an answer": (TOKEN, 1, bytes(24)), "request 0": (PING, 0, bytes(16)),
        "a ping's reserved": (PING, 1, struct.pack("<QII", 0, 0, 1)),
        "a ping's flags": (PING, 1, struct.pack("<QII", 0, 2, 0)),
        "a session's flags": (SESSION_OPEN, 1, bytes(16) + struct.pack("<II", 1, 0)),
        "an admin verb": (ADMIN, 1, struct.pack("<II", 9, 0)),
        "an admin reserved": (ADMIN, 1, struct.pack("<II", 1, 1)),
        "mode 0": (SUBMIT, 1, submit(4, mode=0)), "mode 4": (SUBMIT, 1, submit(4, mode=4)),
        "submit flags": (SUBMIT, 1, submit(4, flags=16)),
        "submit reserved": (SUBMIT, 1, submit(4, reserved=1)),
        "submit reserved2": (SUBMIT, 1, submit(4, reserved2=(0, 1))),
    }
    for name, (kind, request, payload) in rows.items():
        client = daemon.client()
        client.record(kind, request, payload)
        expect(client.is_gone(), f"a record with {name} is accepted")
        client.close()
    client = daemon.client()
    client.record(PING, 1, bytes(16), flags=1)
    expect(client.is_gone(), "a record's flags are accepted")
    client.close()
    client = daemon.client()
    client.record(SUBMIT, 1, good)
    client.record(SUBMIT, 1, good)
    expect(client.is_gone(), "the same request number twice is accepted")
    client.close()
    for name, data in {"kind 9": struct.pack("<II", 9, 0), "a reserved": struct.pack("<II", 3, 1),
                       "half an id": struct.pack("<II", 3, 0) + b"xy", "no head": b"abc",
                       "text among ids": struct.pack("<II", 2, 0) + b"abc",
                       "a turn among ids": struct.pack("<II", 1, 0) + b"user"}.items():
        client = daemon.client()
        client.record(SUBMIT, 1, good, bell=False)
        client.record(DATA, 1, data)
        expect(client.is_gone(), f"data with {name} is accepted")
        client.close()


def refused(daemon):
    """Wrong, but no breach: the request is refused, the connection lives."""
    client = daemon.client()
    nan, inf = float("nan"), float("inf")
    wrong = [dict(temperature=nan), dict(temperature=-1.0), dict(temperature=inf), dict(top_p=nan),
             dict(top_p=0.0), dict(top_p=1.5), dict(min_p=-0.1), dict(min_p=nan)]
    for i, one in enumerate(wrong):
        client.record(SUBMIT, 10 + i, submit(4, **one))
        tokens, why = client.answer(10 + i)
        expect(not tokens and isinstance(why, str), f"{one} gets {tokens} {why}")
    for request, ids, what in ((30, [], "no ids"), (31, [daemon.vocabulary], "an id too large"),
                               (32, [0xFFFFFFFF], "a huge id")):
        client.submit(request, ids, 4)
        tokens, why = client.answer(request)
        expect(not tokens and isinstance(why, str), f"{what}: {tokens} {why}")
    client.record(SUBMIT, 40, submit(4, session=rng.randbytes(16)), bell=False)
    client.record(DATA, 40, struct.pack("<III", 3, 0, 5), bell=False)
    client.record(SUBMIT_END, 40)
    tokens, why = client.answer(40)
    expect(isinstance(why, str), f"somebody else's session: {tokens} {why}")
    # More text than any prompt may have: refused on the way, and the rest is ignored.
    client.record(SUBMIT, 41, submit(4, mode=1), bell=False)
    piece = struct.pack("<II", 2, 0) + b"a" * 8000
    why = None
    for i in range(5000):
        client.record(DATA, 41, piece, bell=not i % 4)
        if i % 4 == 3:
            record = client.read(0.02)
            if record and record[0] == ERROR:
                why = record[2][8:].decode()
                break
    expect(why and "longer" in why, f"a prompt without end: {why}")
    for request in range(50, 90):
        client.submit(request, PROMPT, 20, IGNORE_EOS, bell=False)
    client.bell()
    ends = {}
    while len(ends) < 40:
        record = client.read()
        if record is None:
            break
        if record[0] in (DONE, ERROR):
            ends[record[1]] = record[0]
    said = list(ends.values())
    expect(len(ends) == 40 and 1 <= said.count(ERROR) <= 10,
           f"40 requests where 30 are allowed: {len(ends)} ends, {said.count(ERROR)} refused")
    client.close()


def no_bells(daemon):
    for packet in (b"\x02", b"\x01\x01", b"x" * 1000, bytes(60000)):
        client = daemon.client()
        client.sock.send(packet)
        expect(client.is_gone(), f"a bell of {len(packet)} bytes {packet[:2]} is accepted")
        client.close()
    client = daemon.client()
    with open(os.devnull, "rb") as null:
        for _ in range(4):
            socket.send_fds(client.sock, [b"\x01"], [null.fileno()] * 8)
    client.record(PING, 1, bytes(16))
    expect(client.read()[0] == PONG and daemon.has_fds(daemon.alone + 1), "descriptors with bells are kept")
    # A flood is no breach, and delays nobody.
    for _ in range(20000):
        client.bell()
    expect(daemon.says()[1] == 2, "a flood of bells stops others")
    client.close()


def scribbling(daemon):
    """All that a client may write, at random, while it is read."""
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end:
        client = daemon.client()
        try:
            client.submit(1, PROMPT, 50, IGNORE_EOS)
            for _ in range(rng.randrange(1, 30)):
                where = rng.choice((0, HEAD, TAIL, SLEEP_EMPTY, SLEEP_FULL, client.ring,
                                    client.ring + client.head % client.size - 16))
                client.mine[where:where + 8] = rng.choice(
                    (rng.randbytes(8), bytes(8), b"\xff" * 8,
                     struct.pack("<Q", client.head + rng.randrange(-64, 64) * 16)
                     if client.head > 2048 else struct.pack("<Q", rng.randrange(4096) * 16)))
                client.bell()
            client.mine[client.ring:client.ring + 4096] = rng.randbytes(4096)
            client.publish(client.head + 4096)
        except Gone:
            pass
        client.close()
        rounds += 1
    expect(rounds > 5, f"{rounds} rounds of scribbling only")


def killed(daemon):
    end = time.monotonic() + SECONDS
    rounds = 0
    while time.monotonic() < end:
        children = []
        for _ in range(4):
            child = os.fork()
            if not child:
                try:
                    while True:
                        client = daemon.client()
                        client.record(SESSION_OPEN, 9, bytes(24))
                        client.submit(1, PROMPT, 100, IGNORE_EOS)
                        client.read()
                        client.record(CANCEL, 1)
                        client.close()
                finally:
                    os._exit(0)
            children.append(child)
        time.sleep(rng.uniform(0, 0.08))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        rounds += 1
    expect(rounds > 5, f"{rounds} rounds of killing only")


def never_reading(daemon):
    """Their answers fill their rings; everybody else goes on."""
    deaf = [daemon.client() for _ in range(6)]
    for client in deaf:
        for request in range(1, 4):
            client.submit(request, PROMPT, 1500, IGNORE_EOS | 2, bell=True)
        for request in range(100, 140):
            client.record(STATUS, request)
    for _ in range(3):
        expect(daemon.says()[1] == 2, "clients that do not read stop others")
    # One of them begins to read: its answer goes on where it stood.
    seen = 0
    for _ in range(100):
        record = deaf[0].read(5)
        seen += record is not None
    expect(seen == 100, f"{seen} records after the pause")
    for client in deaf:
        client.close()


def thousand(daemon):
    clients, refusals = [], 0
    for _ in range(1000):
        try:
            client = Client(daemon.path, greet=False)
            client.sock.send(hello())
            clients.append(client)
        except OSError:
            refusals += 1
    for client in clients:
        try:
            client.welcome()
        except (Gone, OSError):
            refusals += 1
    expect(refusals >= 1000 - 24, f"{1000 - refusals} of 1000 were welcomed, 24 are allowed")
    expect(refusals < 1000, "nobody was welcomed")
    for client in clients:
        client.close()
    for _ in range(1000):
        client = daemon.client(greet=False)
        client.sock.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(folder)
        try:
            words = daemon.says()
            expect(len(words[0]) == 12 and words[1] == 2, f"the first answer is {words}")
            # Its descriptors without any client, once the last one's end is noticed.
            time.sleep(1)
            daemon.alone = daemon.fds()
            acts = (bad_hellos, segments, indices, sizes, records, refused, no_bells, scribbling,
                    killed, never_reading, thousand)
            # Once before counting: libraries and caches have taken what they take.
            for act in (bad_hellos, records, refused, never_reading):
                act(daemon)
            daemon.settled()
            expect(daemon.has_fds(daemon.alone), "the warm-up left descriptors behind")
            fds, memory = daemon.alone, daemon.memory()
            for act in acts:
                begin = time.monotonic()
                act(daemon)
                expect(daemon.process.poll() is None, f"{act.__name__}: the daemon has ended")
                # What was under way counts for a moment against the limits of its user.
                daemon.settled()
                answer = daemon.says()
                expect(answer == words, f"{act.__name__}: the daemon answers {answer}")
                status = daemon.settled()
                # Those that were opened by id are remembered, within the limit.
                expect(status["sessions"]["clients"] == 1 and status["sessions"]["all"] <= 40,
                       f"{act.__name__}: {status['sessions']} are left")
                expect(status["kv"]["free"] == status["kv"]["positions"],
                       f"{act.__name__}: positions are left: {status['kv']}")
                expect(daemon.has_fds(fds), f"{act.__name__}: {fds} descriptors became "
                       f"{daemon.fds()}")
                print(f"{act.__name__}: {time.monotonic() - begin:.1f} s, {daemon.memory()} KiB, "
                      f"{daemon.fds()} descriptors", flush=True)
            grown = daemon.memory() - memory
            # The sanitizers keep what is freed.
            with open(f"/proc/{daemon.process.pid}/maps", encoding="utf-8") as file:
                maps = file.read()
            expect(grown < 4096 or "libasan" in maps or "libtsan" in maps,
                   f"the memory grew by {grown} KiB")
        finally:
            daemon.process.terminate()
            status = daemon.process.wait(60)
            daemon.log.seek(0)
            log = daemon.log.read()
        expect(status == 0, f"it ended with status {status}")
        expect("Sanitizer" not in log and "runtime error" not in log, "a sanitizer complains")
        if faults:
            print(log[-6000:])
    return 1 if faults else 0


sys.exit(main())
