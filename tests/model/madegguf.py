# SPDX-License-Identifier: MIT
"""Makes small GGUF files, sound or broken in one place, from the standard library alone."""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
           U64: "<Q", I64: "<q", F64: "<d"}
# Elements and bytes of a block, and where its half-precision scales lie, by type number.
BLOCKS = {"F16": (1, 1, 2, ()), "Q4_0": (2, 32, 18, (0,)), "Q4_1": (3, 32, 20, (0, 2)),
          "Q5_0": (6, 32, 22, (0,)), "Q5_1": (7, 32, 24, (0, 2)), "Q8_0": (8, 32, 34, (0,)),
          "Q2_K": (10, 256, 84, (80, 82)), "Q3_K": (11, 256, 110, (108,)),
          "Q4_K": (12, 256, 144, (0, 2)), "Q5_K": (13, 256, 176, (0, 2)),
          "Q6_K": (14, 256, 210, (208,)), "BF16": (30, 1, 2, ()), "IQ2_XXS": (16, 256, 66, (0,)),
          "IQ4_NL": (20, 32, 18, (0,)), "IQ4_XS": (23, 256, 136, (0,)), "TQ1_0": (34, 256, 54, (52,)),
          "TQ2_0": (35, 256, 66, (64,))}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    """A key and its value; an array is (kind of the elements, list)."""
    data = string(key) + struct.pack("<I", kind)
    if kind == STRING:
        return data + string(value)
    if kind != ARRAY:
        return data + struct.pack(FORMATS[kind], value)
    inner, items = value
    data += struct.pack("<IQ", inner, len(items))
    return data + b"".join(string(i) if inner == STRING else struct.pack(FORMATS[inner], i)
                           for i in items)


def build(pairs, tensors, alignment=32, version=3):
    """pairs: bytes of pair(); tensors: (name, shape, type, data[, offset that is written])."""
    table, body = b"", b""
    for name, shape, kind, data, *offset in tensors:
        table += string(name) + struct.pack("<I", len(shape))
        table += b"".join(struct.pack("<Q", extent) for extent in shape)
        table += struct.pack("<IQ", kind, offset[0] if offset else len(body))
        body += data + b"\0" * (-len(data) % alignment)
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(pairs))
    head += b"".join(pairs) + table
    return head + b"\0" * (-len(head) % alignment) + body


def floats(shape, value=0.01):
    n = 1
    for extent in shape:
        n *= extent
    return struct.pack("<f", value) * n


def model(arch="llama", layers=2, hidden=32, heads=4, kv_heads=2, ff=64, experts=4, top_k=2, vocab=48,
          keys=None, shapes=None, data=None, more_pairs=(), more_tensors=(), tokenizer=True, **how):
    """A model in F32.  keys, shapes, data: what is other than in a sound one, by name; None: absent."""
    all_keys = {"general.architecture": (STRING, arch), "general.name": (STRING, "made"),
                "block_count": (U32, layers), "embedding_length": (U32, hidden),
                "context_length": (U32, 256), "attention.head_count": (U32, heads),
                "attention.head_count_kv": (U32, kv_heads), "feed_forward_length": (U32, ff),
                "attention.layer_norm_rms_epsilon": (F32, 1e-5)}
    if experts:
        all_keys |= {"expert_count": (U32, experts), "expert_used_count": (U32, top_k)}
    if tokenizer:
        all_keys |= {"tokenizer.ggml.model": (STRING, "gpt2"), "tokenizer.ggml.pre": (STRING, "gpt-2"),
                     "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{i}" for i in range(vocab)])),
                     "tokenizer.ggml.merges": (ARRAY, (STRING, []))}
    all_keys |= keys or {}
    size = hidden // heads
    all_shapes = {"token_embd": (hidden, vocab), "output_norm": (hidden,), "output": (hidden, vocab)}
    for layer in range(layers):
        block = {"attn_norm": (hidden,), "attn_q": (hidden, hidden), "attn_k": (hidden, size * kv_heads),
                 "attn_v": (hidden, size * kv_heads), "attn_output": (hidden, hidden),
                 "ffn_norm": (hidden,)}
        if experts:
            block |= {"ffn_gate_inp": (hidden, experts), "ffn_gate_exps": (hidden, ff, experts),
                      "ffn_up_exps": (hidden, ff, experts), "ffn_down_exps": (ff, hidden, experts)}
        else:
            block |= {"ffn_gate": (hidden, ff), "ffn_up": (hidden, ff), "ffn_down": (ff, hidden)}
        all_shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    all_shapes |= shapes or {}
    pairs = [pair(key if key.split(".")[0] in ("general", "tokenizer", "split", "moed")
                  else f"{arch}.{key}", *value)
             for key, value in all_keys.items() if value]
    tensors = []
    for name, shape in all_shapes.items():
        if shape:
            kind, content = (data or {}).get(name, (0, None))
            tensors.append((name + ".weight", shape, kind,
                            floats(shape) if content is None else content))
    return build(pairs + list(more_pairs), tensors + list(more_tensors), **how)
