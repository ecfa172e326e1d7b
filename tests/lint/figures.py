# SPDX-License-Identifier: MIT
"""The memory table of README.md is what `moe-model plan` says.  The files are made here: header and
shape of the published Q4_K_M ones, without the weights (holes), as a plan reads the header only.
Usage: figures.py MOE-MODEL [--print]"""
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

import lint

F32, Q8_0, Q4_K, Q5_K, Q6_K = 0, 8, 12, 13, 14
BLOCK = {F32: (1, 4), Q8_0: (32, 34), Q4_K: (256, 144), Q5_K: (256, 176), Q6_K: (256, 210)}
# arch, layers, hidden, heads, kv heads, head size, expert width, experts, top-k, vocabulary, context
MODELS = {
    "OLMoE-1B-7B-Instruct": ("olmoe", 16, 2048, 16, 16, 128, 1024, 64, 8, 50304, 4096),
    "Qwen3-30B-A3B": ("qwen3moe", 48, 2048, 32, 4, 128, 768, 128, 8, 151936, 40960),
    "Mixtral-8x7B-Instruct": ("llama", 32, 4096, 32, 8, 128, 14336, 8, 2, 32000, 32768),
}
LIMITS = ("4G", "8G", "16G", "24G")


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, value):
    if isinstance(value, list):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def numbers(key, kind, code, values):
    return text(key) + struct.pack("<IIQ", 9, kind, len(values)) + struct.pack(
        f"<{len(values)}{code}", *values)


def vocabulary(arch, n):
    """As many strings as the real one has, and of their usual length."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"{i:06d}" for i in range(n - 3)]
    if arch == "llama":
        return [pair("tokenizer.ggml.model", "llama"), pair("tokenizer.ggml.tokens", tokens),
                numbers("tokenizer.ggml.scores", 6, "f", [0.0] * n),
                numbers("tokenizer.ggml.token_type", 5, "i", [1] * n)]
    return [pair("tokenizer.ggml.model", "gpt2"), pair("tokenizer.ggml.pre", "qwen2"),
            pair("tokenizer.ggml.tokens", tokens),
            numbers("tokenizer.ggml.token_type", 5, "i", [1] * n),
            pair("tokenizer.ggml.merges", ["000 000"] * (n - 300))]


def tensors(arch, layers, hidden, heads, kv, size, width, experts, vocab):
    """Name, shape and type, as Q4_K_M mixes them."""
    few = experts == 8
    yield "token_embd.weight", (hidden, vocab), Q4_K
    for i in range(layers):
        more = i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
        better = Q6_K if more else Q4_K
        block = f"blk.{i}."
        yield block + "attn_norm.weight", (hidden,), F32
        yield block + "attn_q.weight", (hidden, heads * size), Q4_K
        yield block + "attn_k.weight", (hidden, kv * size), Q8_0 if few else Q4_K
        yield block + "attn_v.weight", (hidden, kv * size), Q8_0 if few else better
        yield block + "attn_output.weight", (heads * size, hidden), Q5_K if few else Q4_K
        if arch != "llama":
            q = heads * size if arch == "olmoe" else size
            k = kv * size if arch == "olmoe" else size
            yield block + "attn_q_norm.weight", (q,), F32
            yield block + "attn_k_norm.weight", (k,), F32
        yield block + "ffn_norm.weight", (hidden,), F32
        yield block + "ffn_gate_inp.weight", (hidden, experts), F32
        yield block + "ffn_gate_exps.weight", (hidden, width, experts), Q4_K
        yield block + "ffn_up_exps.weight", (hidden, width, experts), Q4_K
        yield block + "ffn_down_exps.weight", (width, hidden, experts), better
    yield "output_norm.weight", (hidden,), F32
    yield "output.weight", (hidden, vocab), Q6_K


def write(path, shape):
    """The size of the file."""
    arch, layers, hidden, heads, kv, size, width, experts, top_k, vocab, context = shape
    pairs = [pair("general.architecture", arch), pair("general.name", arch),
             pair(arch + ".block_count", layers), pair(arch + ".context_length", context),
             pair(arch + ".embedding_length", hidden), pair(arch + ".feed_forward_length", width),
             pair(arch + ".expert_feed_forward_length", width),
             pair(arch + ".attention.head_count", heads),
             pair(arch + ".attention.head_count_kv", kv),
             pair(arch + ".attention.key_length", size),
             pair(arch + ".attention.value_length", size),
             pair(arch + ".attention.layer_norm_rms_epsilon", 1e-5),
             pair(arch + ".rope.freq_base", 1e6), pair(arch + ".rope.dimension_count", size),
             pair(arch + ".expert_count", experts), pair(arch + ".expert_used_count", top_k),
             *vocabulary(arch, vocab)]
    table, offset, count = b"", 0, 0
    for name, extents, kind in tensors(arch, layers, hidden, heads, kv, size, width, experts,
                                       vocab):
        n = 1
        for extent in extents:
            n *= extent
        table += text(name) + struct.pack("<I", len(extents))
        table += struct.pack(f"<{len(extents)}Q", *extents) + struct.pack("<IQ", kind, offset)
        offset += (n // BLOCK[kind][0] * BLOCK[kind][1] + 31) // 32 * 32
        count += 1
    head = struct.pack("<4sIQQ", b"GGUF", 3, count, len(pairs)) + b"".join(pairs) + table
    with open(path, "wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        file.truncate(file.tell() + offset)
        return file.tell() if file.seek(0, os.SEEK_END) else 0


def plan(path, memory):
    done = subprocess.run([sys.argv[1], "plan", path, "--memory", memory, "--threads", "8",
                           "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        named = re.search(r"\((\d+) bytes\)", done.stderr)
        return {"floor": int(named.group(1)), "bytes_per_token": None}
    return json.loads(done.stdout)


def amount(count):
    if count is None:
        return "too small"
    if count == 0:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def row(name, directory):
    path = os.path.join(directory, name + ".gguf")
    size = write(path, MODELS[name])
    floor = plan(path, "1M")["floor"]
    all_of_it = next(g for g in range(1, 64) if plan(path, f"{g}G")["bytes_per_token"] == 0)
    cells = [name, f"{size / 1e9:.1f} GB", f"{floor / 2**30:.1f}G",
             *(amount(plan(path, limit)["bytes_per_token"]) for limit in LIMITS), f"{all_of_it}G"]
    return "| " + " | ".join(cells) + " |"


def find(files):
    lines = files["README.md"].splitlines()
    return [f"README.md lacks the row '{wanted}'" for wanted in files["rows"].splitlines()
            if wanted not in lines]


with tempfile.TemporaryDirectory() as place:
    rows = "\n".join(row(name, place) for name in MODELS)
if sys.argv[2:] == ["--print"]:
    print(rows)
    sys.exit(0)
with open(os.path.join(lint.ROOT, "README.md"), encoding="utf-8") as readme:
    README = readme.read()
lint.run(find, {"README.md": README, "rows": rows}, {
    "other figure": {"README.md": README.replace("18.6 GB", "18.5 GB"), "rows": rows},
    "other plan": {"README.md": README, "rows": rows.replace("G |", "H |")},
})
