# SPDX-License-Identifier: MIT
"""Splits a GGUF file into parts, as gguf-split does: the keys in the first, some of the tensors and
split.no, split.count, split.tensors.count in all.  Standard library only."""
import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U16, I32, ALIGN = 8, 9, 2, 5, 32


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self):
        return self.take(self.number("<Q"))

    def skip(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, n = self.number("<I"), self.number("<Q")
            for _ in range(n):
                self.skip(inner)
        else:
            self.take(SIZES[kind])


def read(path):
    """Bytes of the keys, how many; and (name, head, data) of each tensor."""
    with open(path, "rb") as file:
        data = file.read()
    cursor = Cursor(data)
    cursor.take(8)
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    begin = cursor.at
    for _ in range(pairs):
        cursor.text()
        cursor.skip(cursor.number("<I"))
    keys, table = data[begin:cursor.at], []
    for _ in range(tensors):
        start = cursor.at
        name = cursor.text()
        cursor.take(8 * cursor.number("<I") + 4)
        table.append((name, data[start:cursor.at], cursor.number("<Q")))
    base = -(-cursor.at // ALIGN) * ALIGN
    ends = sorted([t[2] for t in table] + [len(data) - base])
    return keys, pairs, [(name, head, data[base + at:base + ends[ends.index(at) + 1]])
                         for name, head, at in table]


def key(name, kind, code, value):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + struct.pack(code, value)


def part(keys, n_keys, tensors, number, count, total):
    """The bytes of one part."""
    keys += key(b"split.no", U16, "<H", number) + key(b"split.count", U16, "<H", count)
    keys += key(b"split.tensors.count", I32, "<i", total)
    table, body = b"", b""
    for _, head, data in tensors:
        table += head + struct.pack("<Q", len(body))
        body += data + b"\0" * (-len(data) % ALIGN)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), n_keys + 3) + keys + table
    return head + b"\0" * (-len(head) % ALIGN) + body


def name(prefix, number, count):
    return f"{prefix}-{number + 1:05d}-of-{count:05d}.gguf"


def split(path, groups):
    """The parts' bytes; groups(name of a tensor) is the number of its part."""
    keys, n_keys, tensors = read(path)
    numbers = [groups(t[0].decode()) for t in tensors]
    count = max(numbers) + 1
    return [part(keys if i == 0 else b"", n_keys if i == 0 else 0,
                 [t for t, number in zip(tensors, numbers) if number == i], i, count, len(tensors))
            for i in range(count)]
