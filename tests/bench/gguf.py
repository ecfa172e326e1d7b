# SPDX-License-Identifier: MIT
"""GGUF files, as far as benchmarks need them: the header of any (what a token must read, how many
products it takes), and writing files of random weights.  Standard library only."""
import struct

MAGIC = b"GGUF"
ALIGNMENT = 32
# Name, weights of a block, bytes of a block.
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
         11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
         14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
NUMBERS = {name: number for number, (name, _, _) in TYPES.items()}
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
           11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, file):
        self.file = file

    def bytes(self, n):
        data = self.file.read(n)
        if len(data) != n:
            raise ValueError("the file ends within its header")
        return data

    def scalar(self, code):
        return struct.unpack(code, self.bytes(struct.calcsize(code)))[0]

    def string(self):
        return self.bytes(self.scalar("<Q")).decode(errors="replace")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            inner, n = struct.unpack("<IQ", self.bytes(12))
            if inner in SCALARS:
                self.bytes(struct.calcsize(SCALARS[inner]) * n)
            else:
                for _ in range(n):
                    self.value(inner)
            return n
        if kind not in SCALARS:
            raise ValueError(f"a value of the unknown kind {kind}")
        return self.scalar(SCALARS[kind])


class Model:
    """The header of a file; of an array only its length is kept."""
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            reader = Reader(file)
            if reader.bytes(4) != MAGIC:
                raise ValueError(f"'{path}' is no GGUF file")
            version, tensors, pairs = struct.unpack("<IQQ", reader.bytes(20))
            if version not in (2, 3):
                raise ValueError(f"'{path}' is GGUF version {version}")
            self.keys = {}
            for _ in range(pairs):
                key = reader.string()
                self.keys[key] = reader.value(reader.scalar("<I"))
            self.tensors = {}
            for _ in range(tensors):
                name = reader.string()
                shape = [reader.scalar("<Q") for _ in range(reader.scalar("<I"))]
                self.tensors[name] = (shape, reader.scalar("<I"))
                reader.scalar("<Q")
            file.seek(0, 2)
            self.size = file.tell()
        self.arch = self.keys.get("general.architecture", "")

    def key(self, name, default=0):
        return self.keys.get(f"{self.arch}.{name}", default)

    @staticmethod
    def elements(shape):
        n = 1
        for extent in shape:
            n *= extent
        return n

    def tensor_bytes(self, name):
        shape, number = self.tensors[name]
        if number not in TYPES:
            raise ValueError(f"tensor '{name}' has type {number}, which is not known here")
        _, per, size = TYPES[number]
        return self.elements(shape) // per * size

    def parts(self):
        """Name, and how much of the tensor a token reads: all, its experts' share, or one row."""
        tied = "output.weight" not in self.tensors
        share = self.key("expert_used_count") / max(1, self.key("expert_count"))
        for name in self.tensors:
            if "_exps." in name:
                yield name, share
            elif name != "token_embd.weight" or tied:
                yield name, 1

    def weight_bytes(self):
        """What one token of a decode must read."""
        return round(sum(self.tensor_bytes(name) * share for name, share in self.parts()))

    def dense_bytes(self):
        return sum(self.tensor_bytes(name) for name in self.tensors if "_exps." not in name)

    def macs(self):
        """Multiply-adds of weights for one token of a prompt, which needs no logits."""
        return round(sum(self.elements(self.tensors[name][0]) * share
                         for name, share in self.parts()
                         if len(self.tensors[name][0]) > 1
                         and name not in ("output.weight", "token_embd.weight")))

    def position_bytes(self):
        """Keys and values of one position in F16."""
        heads = self.key("attention.head_count")
        kv = self.key("attention.head_count_kv", heads)
        size = self.key("attention.key_length", self.key("embedding_length") // max(1, heads))
        return self.key("block_count") * kv * 2 * size * 2

    def describe(self):
        counts = {}
        for shape, number in self.tensors.values():
            name = TYPES.get(number, (str(number),))[0]
            counts[name] = counts.get(name, 0) + self.elements(shape)
        most = max(counts, key=counts.get)
        return {"path": self.path, "name": self.keys.get("general.name", ""), "arch": self.arch,
                "file_bytes": self.size, "layers": self.key("block_count"),
                "experts": self.key("expert_count"), "top_k": self.key("expert_used_count"),
                "type": most, "context": self.key("context_length"),
                "weight_bytes_per_token": self.weight_bytes(), "dense_bytes": self.dense_bytes(),
                "kv_bytes_per_position": self.position_bytes(), "macs_per_token": self.macs()}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, value):
    """Whole numbers become u32, other numbers f32; lists have one of these kinds or text."""
    kinds = {bool: 7, int: 4, float: 6, str: STRING}
    if not isinstance(value, list):
        data = string(value) if isinstance(value, str) else struct.pack(
            SCALARS[kinds[type(value)]], value)
        return string(key) + struct.pack("<I", kinds[type(value)]) + data
    if isinstance(value[0], str):
        data = b"".join(map(string, value))
    else:
        data = struct.pack(f"<{len(value)}{'f' if isinstance(value[0], float) else 'i'}", *value)
    inner = {str: STRING, float: 6, int: 5}[type(value[0])]
    return string(key) + struct.pack("<IIQ", ARRAY, inner, len(value)) + data


def write(path, pairs, tensors):
    """tensors: (name, shape, type's name, function from a number of bytes to chunks of data)."""
    head, offset = b"", 0
    for name, shape, kind, _ in tensors:
        number = NUMBERS[kind]
        _, per, size = TYPES[number]
        head += string(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", number, offset)
        n = Model.elements(shape) // per * size
        offset += -(-n // ALIGNMENT) * ALIGNMENT
    head = struct.pack("<4sIQQ", MAGIC, 3, len(tensors), len(pairs)) + b"".join(
        pair(key, value) for key, value in pairs.items()) + head
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % ALIGNMENT))
        for _, shape, kind, data in tensors:
            _, per, size = TYPES[NUMBERS[kind]]
            n = Model.elements(shape) // per * size
            for chunk in data(n):
                file.write(chunk)
            file.write(b"\0" * (-n % ALIGNMENT))
