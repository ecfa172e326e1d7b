# SPDX-License-Identifier: MIT
"""Writes a tiny dense model (arch llama, byte-level vocabulary) with random weights, from the
standard library alone: what the end-to-end tests run."""
import random
import struct

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
TYPE_F32, TYPE_Q4_1, TYPE_Q8_0 = 0, 3, 8
EOS = 2
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
          "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, item):
    if kind == STRING:
        return string(item)
    return struct.pack({U32: "<I", F32: "<f", BOOL: "<?", I32: "<i"}[kind], item)


def pair(key, kind, item):
    if kind == ARRAY:
        inner, items = item
        return (string(key) + struct.pack("<IIQ", ARRAY, inner, len(items))
                + b"".join(value(inner, i) for i in items))
    return string(key) + struct.pack("<I", kind) + value(kind, item)


def byte_characters():
    """The 256 characters by which byte-level vocabularies write bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            characters[byte] = chr(byte)
        else:
            characters[byte] = chr(256 + extra)
            extra += 1
    return [characters[byte] for byte in range(256)]


def vocabulary():
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_characters()]
    kinds = [3, 3, 3] + [1] * 256
    merges = []
    for pairs in (("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("Ġ", "the"), ("in", "g")):
        merges.append(" ".join(pairs))
        tokens.append("".join(pairs))
        kinds.append(1)
    while len(tokens) % 32:
        tokens.append(f"<unused{len(tokens)}>")
        kinds.append(5)
    return tokens, kinds, merges


class Weights:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def f32(self, n, around=0.0, spread=0.1):
        return struct.pack(f"<{n}f", *(around + self.random.uniform(-spread, spread)
                                       for _ in range(n)))

    def q8_0(self, n, scale):
        return b"".join(struct.pack("<e", self.random.uniform(0.5, 1.5) * scale / 127)
                        + self.random.randbytes(32) for _ in range(n // 32))

    def q4_1(self, n, scale):
        blocks = []
        for _ in range(n // 32):
            d = self.random.uniform(0.5, 1.5) * scale / 8
            blocks.append(struct.pack("<ee", d, -7.5 * d) + self.random.randbytes(16))
        return b"".join(blocks)


def write(path, layers=3, hidden=64, heads=4, kv_heads=2, ff=128, context=2048, seed=1, f32=False,
          endless=False):
    """endless: the likeliest token is never the one that ends an answer."""
    tokens, kinds, merges = vocabulary()
    size = hidden // heads
    weights = Weights(seed)
    tensors = []

    def add(name, shape, scale, kind):
        n = 1
        for extent in shape:
            n *= extent
        if kind == "norm":
            tensors.append((name, shape, TYPE_F32, weights.f32(n, 1.0, 0.2)))
        elif f32:
            tensors.append((name, shape, TYPE_F32, weights.f32(n, 0.0, scale)))
        elif kind == "embedding":
            data = weights.q8_0(n, scale)
            if endless:
                row = hidden // 32 * 34
                data = data[:EOS * row] + bytes(row) + data[(EOS + 1) * row:]
            tensors.append((name, shape, TYPE_Q8_0, data))
        else:
            tensors.append((name, shape, TYPE_Q4_1, weights.q4_1(n, scale)))

    add("token_embd.weight", (hidden, len(tokens)), 1.0, "embedding")
    for layer in range(layers):
        block = f"blk.{layer}."
        add(block + "attn_norm.weight", (hidden,), 1, "norm")
        add(block + "attn_q.weight", (hidden, heads * size), 0.3, "")
        add(block + "attn_k.weight", (hidden, kv_heads * size), 0.3, "")
        add(block + "attn_v.weight", (hidden, kv_heads * size), 0.3, "")
        add(block + "attn_output.weight", (heads * size, hidden), 0.3, "")
        add(block + "ffn_norm.weight", (hidden,), 1, "norm")
        add(block + "ffn_gate.weight", (hidden, ff), 0.3, "")
        add(block + "ffn_up.weight", (hidden, ff), 0.3, "")
        add(block + "ffn_down.weight", (ff, hidden), 0.3, "")
    add("output_norm.weight", (hidden,), 1, "norm")

    pairs = [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "tiny"),
        pair("general.alignment", U32, 32),
        pair("llama.block_count", U32, layers),
        pair("llama.context_length", U32, context),
        pair("llama.embedding_length", U32, hidden),
        pair("llama.feed_forward_length", U32, ff),
        pair("llama.attention.head_count", U32, heads),
        pair("llama.attention.head_count_kv", U32, kv_heads),
        pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        pair("llama.rope.dimension_count", U32, size),
        pair("llama.rope.freq_base", F32, 10000.0),
        pair("llama.vocab_size", U32, len(tokens)),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "smollm"),
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        pair("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        pair("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        pair("tokenizer.ggml.bos_token_id", U32, 1),
        pair("tokenizer.ggml.eos_token_id", U32, EOS),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.chat_template", STRING, CHATML),
    ]
    table, offset = b"", 0
    for name, shape, kind, data in tensors:
        table += (string(name) + struct.pack("<I", len(shape))
                  + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset))
        offset += (len(data) + 31) // 32 * 32
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs) + table
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % 32))
        for _, _, _, data in tensors:
            file.write(data + b"\0" * (-len(data) % 32))
    return len(tokens)
