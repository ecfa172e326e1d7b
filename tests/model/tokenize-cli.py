#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""moe-model tokenize and detokenize as a user meets them: tokenize-cli.py MOE-MODEL FOLDER-OF-FIXTURES"""
import json
import subprocess
import sys

PROGRAM, FOLDER = sys.argv[1:]


def run(verb, name, data, *options):
    r = subprocess.run([PROGRAM, verb, f"{FOLDER}/{name}.gguf", *options], input=data, capture_output=True, timeout=60)
    return r.returncode, r.stdout, r.stderr.decode()


def check(got, want):
    if got != want:
        sys.exit(f"wanted {want!r}, got {got!r}")


def lines(verb, name, objects, status=0):
    code, out, err = run(verb, name, b"\n".join(o if isinstance(o, bytes) else json.dumps(o).encode() for o in objects), "--jsonl")
    check(code, status)
    out.decode("ascii")
    return [json.loads(line) for line in out.decode().splitlines()], err


# All bytes, and an empty input, come back; nothing is added to either.
anything = bytes(range(256)) * 3 + "<|im_end|> e\u0301\u2028 ".encode() + b"\n\n\xe2\x82"
for name in ("gpt-2", "smollm", "llama-bpe", "spm"):
    for text in (anything, b"", b"\n", b"no newline", b"x" * 300000):
        code, ids, err = run("tokenize", name, text)
        check((code, err, ids[-1:]), (0, "", b"\n"))
        check(run("detokenize", name, ids), (0, text, ""))
        check(run("detokenize", name, ids.replace(b" ", b",\n")), (0, text, ""))

# The cases of the fixture, in one go, and back.
objects, wanted = [], []
with open(f"{FOLDER}/llama-bpe.txt", encoding="ascii") as f:
    for line in f:
        flags, text, *ids = line.split()
        text = bytes.fromhex(text.strip("-"))
        one = {"text": text.decode()} if len(objects) % 2 else {"hex": text.hex()}
        objects.append({**one, "add_special": bool(int(flags) & 1), "parse_special": bool(int(flags) & 2)})
        wanted.append([int(i) for i in ids])
out, err = lines("tokenize", "llama-bpe", objects)
check(([o["ids"] for o in out], err), (wanted, ""))
out, err = lines("detokenize", "llama-bpe", out)
for o, w in zip(out, objects):
    if not w["add_special"]:
        check(o["text"], w.get("text", bytes.fromhex(w.get("hex", "")).decode()))

# Control tokens: only where asked for; skipped only where asked for.
(plain, marks), err = lines("tokenize", "smollm", [{"text": "a<|im_end|>"}, {"text": "a<|im_end|>", "parse_special": True}])
check(len(marks["ids"]), 2)
check(len(plain["ids"]) > 5, True)
out, err = lines("detokenize", "smollm", [marks, {**marks, "skip_special": True}, {**plain, "skip_special": True}])
check([o["text"] for o in out], ["a<|im_end|>", "a", "a<|im_end|>"])
out, err = lines("detokenize", "smollm", [{"ids": [255, 65]}, {"ids": []}, {"ids": [0xe2, 0x80, 0xa8]}])
check(out, [{"hex": "ff41"}, {"text": ""}, {"text": "\u2028"}])

# A bad line is named, the others are served, and the status tells.
out, err = lines("tokenize", "smollm", [
    {"text": "a"}, b"", b"nonsense", {"text": 1}, {"text": "a", "hex": "61"}, {"text": None, "hex": "61"}, {}, [1], {"hex": "6"}, {"hex": "6g"},
    {"text": "a", "add_special": 1}, b'{"text":"\\ud800"}', b'{"text":"\xff"}', b'{"text":"a","text":"b"}', {"text": "a", "class": "more keys"}], 1)
check([o.get("ids", o.get("error", "").split(":")[0]) for o in out],
      [[97], "line 3", "line 4", "line 5", [97], *(f"line {n}" for n in range(7, 15)), [97]])
check(err.count("\n"), 11)
check(err.startswith("moe-model tokenize: line 3: not JSON"), True)
out, err = lines("detokenize", "smollm", [
    {"ids": [97]}, {"ids": [100000]}, {"ids": [-1]}, {"ids": [1.5]}, {"ids": ["1"]}, b'{"ids":[99999999999999999999]}', {"ids": {}}, {}], 1)
check([o.get("text", o.get("error", "").split(":")[0]) for o in out], ["a", *(f"line {n}" for n in range(2, 9))])
check(err.count("\n"), 7)

# Ids that are none; a long line; a file that is none.
for words in (b"1 x", b"-1", b"100000", b"1\0", b"99999999999999999999999"):
    code, out, err = run("detokenize", "smollm", words)
    check((code, out, err.count("\n")), (1, b"", 1))
(one,), err = lines("tokenize", "smollm", [{"text": "a b" * 1000000}])
check(len(one["ids"]) > 1000000, True)
check(run("tokenize", "none", b"")[0], 1)
check(run("tokenize", "smollm", b"", "--none")[0], 2)
