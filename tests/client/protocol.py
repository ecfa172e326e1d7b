# SPDX-License-Identifier: MIT
"""A client of moed in Python's standard library, written from docs/PROTOCOL.md alone: what another
language needs, and what the tests of the protocol and of hostile clients are made of."""

import array
import collections
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
import time

MAGIC, SEGMENT_MAGIC = 0x31454F4D, 0x314745534D454F4D
HELLO, LOADING, WELCOME, REFUSED = 1, 2, 3, 4
(PAD, SESSION_OPEN, SESSION_CLOSE, SESSION_FORGET, SUBMIT, DATA, SUBMIT_END, CANCEL, STATUS, PING,
 ADMIN, EXPERTS, TRACE) = range(13)
(SESSION, OK, ACCEPTED, PROGRESS, TOKEN, LOGITS, DONE, ERROR, STATUS_PIECE,
 PONG, ROUTES, TRACED) = range(32, 44)
TEXT, CHAT, IDS = 1, 2, 3
LOGPROBS, WANT_LOGITS, SCORE, IGNORE_END, WANT_ROUTES = 1, 2, 4, 8, 16
DATA_TURN, DATA_TEXT, DATA_IDS, DATA_STOP = 1, 2, 3, 4
STOP, LENGTH, CANCELLED = 1, 2, 3
NO_SESSION = bytes(16)
F_GET_SEALS = 1034
SEALS, SEAL_FUTURE_WRITE = 1 | 2 | 4, 16

Welcome = collections.namedtuple("Welcome", "major minor pid client daemon record_max sessions_max "
                                 "requests_max vocabulary context prompt_max version")
Token = collections.namedtuple("Token", "id position logprob from_prompt text")
Route = collections.namedtuple("Route", "turn position bytes layer decode choices")
Choice = collections.namedtuple("Choice", "expert resident weight")
Done = collections.namedtuple("Done", "finish prompt_tokens generated reused queue_ns prefill_ns "
                              "decode_ns io_wait_ns hits misses bytes_read bytes_useful")


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Failed(Refused):
    """ERROR."""


class Gone(Exception):
    """The daemon has closed the connection."""


def hello(major=1, minor=1):
    return struct.pack("<IHHHHIQQ", MAGIC, HELLO, 32, major, minor, 0, 0, 0)


class Words:
    """The hot words of a segment.  A memoryview of one element is a single load or store of the
    processor; a lock taken and released is the barrier that makes them sequentially consistent."""

    def __init__(self, mapping):
        view = memoryview(mapping)
        self.u64, self.u32 = view[:4096].cast("Q"), view[:4096].cast("I")
        self.lock = threading.Lock()

    def barrier(self):
        with self.lock:
            pass

    def load(self, name):
        self.barrier()
        value = {"head": lambda: self.u64[16], "tail": lambda: self.u64[32],
                 "empty": lambda: self.u32[96], "full": lambda: self.u32[128]}[name]()
        self.barrier()
        return value

    def store(self, name, value):
        self.barrier()
        if name == "head":
            self.u64[16] = value
        elif name == "tail":
            self.u64[32] = value
        elif name == "empty":
            self.u32[96] = value
        else:
            self.u32[128] = value
        self.barrier()


class Client:
    def __init__(self, path, timeout=60, minor=1):
        self.path = path
        self.timeout, self.number, self.loading = timeout, 0, []
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)
        self.sock.settimeout(timeout)
        try:
            self.sock.send(hello(minor=minor))
        except BrokenPipeError:  # REFUSED may be there already
            pass
        while not self.greeted():
            pass

    def greeted(self):
        fds = array.array("i")
        data, ancillary, _, _ = self.sock.recvmsg(2048, socket.CMSG_SPACE(8))
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
        if not data:
            raise Gone
        magic, kind, size = struct.unpack_from("<IHH", data)
        assert magic == MAGIC and size == len(data) <= 2048, data
        if kind == LOADING:
            percent, length = struct.unpack_from("<II", data, 8)
            assert percent <= 100 and 16 + length == size
            self.loading.append((percent, data[16:].decode()))
            return False
        if kind == REFUSED:
            code, length = struct.unpack_from("<iI", data, 8)
            raise Refused(code, data[24:24 + length].decode())
        assert kind == WELCOME and size >= 136 and len(fds) == 2, (kind, size, fds)
        self.take_welcome(data, fds)
        return True

    def take_welcome(self, data, fds):
        f = struct.unpack_from("<HHI QII QII IIII QQQQQ 32s", data, 8)
        self.welcome = Welcome(f[0], f[1], f[2], f[3:6], f[6:9], f[9], f[10], f[11], f[12], f[13],
                               f[14], f[18].rstrip(b"\0").decode())
        assert f[15:18] == (0, 0, 0)
        for fd, (size, _, ring), seals in ((fds[0], self.welcome.client, SEALS),
                                           (fds[1], self.welcome.daemon,
                                            SEALS | SEAL_FUTURE_WRITE)):
            assert os.fstat(fd).st_size == size and ring & (ring - 1) == 0 and ring >= 65536
            assert fcntl.fcntl(fd, F_GET_SEALS) & seals == seals
        self.own_map = mmap.mmap(fds[0], self.welcome.client[0])
        self.other_map = mmap.mmap(fds[1], self.welcome.daemon[0], prot=mmap.PROT_READ)
        for mapping, geometry in ((self.own_map, self.welcome.client),
                                  (self.other_map, self.welcome.daemon)):
            assert struct.unpack_from("<QHHIQII", mapping) == (SEGMENT_MAGIC, 1, 1, 640, *geometry)
        self.fds = list(fds)
        self.own, self.other = Words(self.own_map), Words(self.other_map)
        self.head = self.tail = 0
        self.sleeps, self.rung = 0, {"empty": 0, "full": 0}
        self.waiting = collections.deque()  # records for other requests than the one asked for

    def close(self):
        self.sock.close()
        for fd in getattr(self, "fds", []):
            os.close(fd)
        self.fds = []

    # ---- the socket after WELCOME

    def bell(self, name):
        """After moving an index: rings where the daemon sleeps for it, once a sleep."""
        word = self.other.load(name)
        if word and word != self.rung[name]:
            self.rung[name] = word
            try:
                self.sock.send(b"\1", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                pass
            except OSError as e:
                raise Gone from e

    def wait(self, want_room=0):
        """Sleeps until there are records (or room, where that is wanted)."""
        self.sleeps = self.sleeps % 0xFFFFFFFF + 1
        self.own.store("empty", self.sleeps)
        if want_room:
            self.own.store("full", self.sleeps)
        if self.other.load("head") == self.tail and not (want_room and self.room(want_room)):
            if not select.select([self.sock], [], [], self.timeout)[0]:
                raise TimeoutError
            try:
                bell = self.sock.recv(16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                bell = b"\1"
            except ConnectionResetError:
                bell = b""
            if not bell:
                raise Gone
            assert bell == b"\1", bell
        self.own.store("empty", 0)
        self.own.store("full", 0)

    # ---- the rings

    def room(self, space):
        size = self.welcome.client[2]
        used = self.head - self.other.load("tail")
        assert 0 <= used <= size
        left = size - self.head % size
        return used + (space if space <= left else left + space) <= size

    def put(self, kind, number, payload=b""):
        """Writes one record."""
        _, offset, size = self.welcome.client
        space = (16 + len(payload) + 15) // 16 * 16
        while not self.room(space):
            self.wait(want_room=space)
            while self.take():
                pass
        left = size - self.head % size
        if space > left:
            struct.pack_into("<IHHQ", self.own_map, offset + self.head % size, left, PAD, 0, 0)
            self.head += left
        at = offset + self.head % size
        struct.pack_into("<IHHQ", self.own_map, at, 16 + len(payload), kind, 0, number)
        self.own_map[at + 16:at + space] = payload.ljust(space - 16, b"\0")
        self.head += space
        self.own.store("head", self.head)
        self.bell("empty")

    def take(self):
        """Reads one record into self.waiting.  False: there is none."""
        _, offset, size = self.welcome.daemon
        head = self.other.load("head")
        assert 0 <= head - self.tail <= size and head % 16 == 0
        if head == self.tail:
            return False
        at = offset + self.tail % size
        length, kind, flags, number = struct.unpack_from("<IHHQ", self.other_map, at)
        space = (length + 15) // 16 * 16
        assert 16 <= length and flags == 0 and space <= head - self.tail
        assert self.tail % size + space <= size
        if kind == PAD:
            assert length == size - self.tail % size and number == 0
        else:
            assert length <= self.welcome.record_max
            self.waiting.append((kind, number, self.other_map[at + 16:at + length]))
        self.tail += space
        self.own.store("tail", self.tail)
        self.bell("full")
        return True

    def get(self, number):
        """The next record of that request: (type, payload)."""
        end = time.monotonic() + self.timeout
        while True:
            for i, (kind, of, payload) in enumerate(self.waiting):
                if of == number:
                    del self.waiting[i]
                    return kind, payload
            if not self.take():
                if time.monotonic() > end:
                    raise TimeoutError
                self.wait()

    # ---- requests

    def new_number(self):
        self.number += 1
        return self.number

    def ask(self, kind, payload=b"", want=OK):
        """A request with one answer: its payload."""
        number = self.new_number()
        self.put(kind, number, payload)
        kind, payload = self.get(number)
        if kind == ERROR:
            self.fail(payload)
        assert kind == want, kind
        return payload

    @staticmethod
    def fail(payload):
        code, length = struct.unpack_from("<iI", payload)
        assert code < 0 and len(payload) == 8 + length
        raise Failed(code, payload[8:].decode())

    def session_open(self, session=NO_SESSION):
        """(id, found, positions)"""
        answer = self.ask(SESSION_OPEN, struct.pack("<16sII", session, 0, 0), SESSION)
        session, flags, zero, positions = struct.unpack("<16sIIQ", answer)
        assert zero == 0 and session != NO_SESSION
        return session, bool(flags & 1), positions

    def session_close(self, session, forget=False):
        self.ask(SESSION_FORGET if forget else SESSION_CLOSE, session)

    def ping(self, cookie=0, busy=False):
        answer = self.ask(PING, struct.pack("<QII", cookie, busy, 0), PONG)
        assert struct.unpack("<QII", answer) == (cookie, busy, 0)

    def experts(self):
        return self.status(EXPERTS)

    def trace(self):
        """Its number; from here on all is told."""
        number = self.new_number()
        self.put(TRACE, number, struct.pack("<II", 0, 0))
        kind, payload = self.get(number)
        if kind == ERROR:
            self.fail(payload)
        assert kind == ROUTES and routes_of(payload) == (0, [])
        return number

    def traced(self, number):
        """Ends a trace: (entries, tokens told, tokens lost)"""
        self.cancel(number)
        entries = []
        while True:
            kind, payload = self.get(number)
            if kind == TRACED:
                return (entries, *struct.unpack("<QQ", payload))
            assert kind == ROUTES
            entries += routes_of(payload)[1]

    def status(self, kind=STATUS):
        number, text = self.new_number(), b""
        self.put(kind, number)
        while True:
            kind, payload = self.get(number)
            if kind == ERROR:
                self.fail(payload)
            offset, whole = struct.unpack_from("<II", payload)
            assert kind == STATUS_PIECE and offset == len(text)
            text += payload[8:]
            if len(text) == whole:
                return text.decode()

    def data(self, number, kind, payload):
        room = (self.welcome.record_max - 24) // 4 * 4
        for at in range(0, max(len(payload), 1), room):
            self.put(DATA, number, struct.pack("<II", kind, 0) + payload[at:at + room])

    def submit(self, prompt, session=NO_SESSION, flags=0, max_tokens=0, top_k=0, temperature=0.0,
               top_p=1.0, min_p=0.0, seed=0, stops=()):
        """prompt: str or bytes (raw text), a list of (role, text), or a list of ids."""
        number = self.new_number()
        raw = isinstance(prompt, (str, bytes))
        mode = TEXT if raw else CHAT if isinstance(prompt[0], tuple) else IDS
        self.put(SUBMIT, number, struct.pack("<16sIIIIfffIQQQ", session, mode, flags, max_tokens,
                                             top_k, temperature, top_p, min_p, 0, seed, 0, 0))
        for stop in stops:
            self.data(number, DATA_STOP, stop.encode())
        if mode == TEXT:
            self.data(number, DATA_TEXT, prompt.encode() if isinstance(prompt, str) else prompt)
        elif mode == IDS:
            self.data(number, DATA_IDS, struct.pack(f"<{len(prompt)}I", *prompt))
        else:
            for role, text in prompt:
                self.data(number, DATA_TURN, role.encode())
                self.data(number, DATA_TEXT, text.encode())
        self.put(SUBMIT_END, number)
        return number

    def cancel(self, number):
        self.put(CANCEL, number)

    def stream(self, number):
        """The records of a request as they come: (type, value); the last is DONE."""
        row, accepted = [], False
        while True:
            kind, payload = self.get(number)
            if kind == ERROR:
                self.fail(payload)
            if kind == ACCEPTED:
                ahead, zero = struct.unpack("<II", payload)
                assert not accepted and zero == 0
                accepted = True
                yield kind, ahead
            elif kind == PROGRESS:
                done, of = struct.unpack("<II", payload)
                assert done <= of
                yield kind, (done, of)
            elif kind == LOGITS:
                position, first, count, of = struct.unpack_from("<IIII", payload)
                assert first == len(row) and len(payload) == 16 + 4 * count
                row.extend(struct.unpack_from(f"<{count}f", payload, 16))
                if len(row) == of:
                    yield kind, (position, row)
                    row = []
            elif kind == TOKEN:
                token, position, logprob, flags, length, zero = struct.unpack_from("<IIfIII",
                                                                                   payload)
                assert zero == 0 and len(payload) == 24 + length and not row
                yield kind, Token(token, position, logprob if flags & 1 else None,
                                  bool(flags & 2), payload[24:].decode())
            elif kind == DONE:
                figures = struct.unpack("<IIII8Q4Q", payload)
                assert accepted and figures[12:] == (0, 0, 0, 0)
                yield kind, Done(*figures[:12])
                return
            elif kind == ROUTES:
                lost, entries = routes_of(payload)
                assert lost == 0 and entries
                yield kind, entries
            # Others are of a later minor.

    def answer(self, number):
        """(tokens, Done)"""
        tokens = []
        for kind, value in self.stream(number):
            if kind == TOKEN:
                tokens.append(value)
        return tokens, value


    def done(self, number):
        """The end of a request whose stream was left."""
        while True:
            kind, payload = self.get(number)
            if kind == ERROR:
                self.fail(payload)
            if kind == DONE:
                return Done(*struct.unpack("<IIII8Q4Q", payload)[:12])


def routes_of(payload):
    """(lost, [Route]) of a record ROUTES"""
    lost, count, zero = struct.unpack_from("<QII", payload)
    entries, at = [], 16
    for _ in range(count):
        turn, position, size, layer, flags, n = struct.unpack_from("<IIIHBB", payload, at)
        choices = [struct.unpack_from("<HHf", payload, at + 16 + 8 * i) for i in range(n)]
        entries.append(Route(turn, position, size, layer, bool(flags & 1),
                             [Choice(e, bool(f & 1), w) for e, f, w in choices]))
        at += 16 + 8 * n
    assert zero == 0 and at == len(payload)
    return lost, entries


def text_of(tokens):
    return "".join(t.text for t in tokens)
