# SPDX-License-Identifier: MIT
"""moe-model inspect, check, plan and upcycle, as a user runs them, on sound and on hostile files.
Usage: files-cli.py MOE-MODEL"""
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile

from madegguf import (ARRAY, BLOCKS, BOOL, F32, I32, STRING, U8, U16, U32, U64, build, floats, model,
                      pair, string)

MOE_MODEL = os.path.abspath(sys.argv[1])
VERBS = ("check", "inspect", "plan", "upcycle")
faults = 0


def run(*arguments, **how):
    done = subprocess.run([MOE_MODEL, *arguments], capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=60, **how)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def expect(condition, *what):
    global faults
    if not condition:
        faults += 1
        print("FAULT:", *what)


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return name


def usage():
    for arguments in (["--help"], ["--version"], *([v, "--help"] for v in VERBS),
                      *([v, "--version"] for v in VERBS)):
        status, out, err = run(*arguments)
        expect(status == 0 and out and not err, arguments, status, err)
    for arguments in ([], ["nonsense"], ["--nonsense"], *([v] for v in VERBS),
                      *([v, "--nonsense", "x"] for v in VERBS), *([v, "-x"] for v in VERBS),
                      *([v, "a", "b", "c"] for v in VERBS), ["plan", "x", "--memory"],
                      ["plan", "x"], ["inspect", "x", "--json=1"]):
        status, out, err = run(*arguments)
        expect(status == 2 and not out and "--help" in err, arguments, status, out, err)
    for size in ("", "0", "x", "-1", "1.5G", "0%", "101%", "6Q", "99999999999999999999"):
        expect(run("plan", "good", "--memory", size)[0] == 2, "plan --memory", size)
    for verb in VERBS[:3]:
        for path in ("absent", ".", "/dev/null", ""):
            more = ["--memory", "1G"] if verb == "plan" else []
            status, out, err = run(verb, path, *more)
            expect(status == 1 and not out and f"'{path}'" in err, verb, path, status, out, err)


def array(kind, n, data=b""):
    return string("x") + struct.pack("<IIQ", ARRAY, kind, n) + data


def extra(name, shape, data=b"", kind=0, *offset):
    return model(more_tensors=[(name, shape, kind, data, *offset)])


# Files that are no GGUF as we can read it: all verbs fail, with these words.
UNREADABLE = {
    "empty": (b"", "is empty"), "short": (b"GG", "truncated"),
    "magic": (b"GGML" + model()[4:], "47474d4c"), "v1": (model(version=1), "version 1"),
    "v4": (model(version=4), "version 4"), "big": (model(version=3 << 24), "big-endian"),
    "counts": (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 63, 1 << 63), "limits"),
    "align0": (model(keys={"general.alignment": (U32, 0)}), "alignment is 0"),
    "align24": (model(keys={"general.alignment": (U32, 24)}), "alignment is 24"),
    "alignment-text": (model(keys={"general.alignment": (STRING, "32")}), "general.alignment"),
    "key-twice": (model(more_pairs=[pair("general.name", STRING, "x")]), "'general.name' is there twice"),
    "tensor-twice": (extra("output_norm.weight", (32,), floats((32,))), "'output_norm.weight' is there"),
    "overlap": (extra("x", (32,), floats((32,)), 0, 0), "overlap"),
    "beyond": (extra("x", (32,), b"", 0, 1 << 40), "goes past the end"),
    "wraps": (extra("x", (32,), b"", 0, (1 << 64) - 32), "goes past the end"),
    "misplaced": (extra("x", (32,), floats((32,)), 0, 36), "multiple of the alignment"),
    "no-dims": (extra("x", ()), "0 dimensions"), "5-dims": (extra("x", (1,) * 5), "5 dimensions"),
    "no-extent": (extra("x", (0, 3)), "empty dimension"),
    "product": (extra("x", (1 << 32, 1 << 32)), "too many elements"),
    "blocks": (extra("x", (32, 2), b"", 12), "whole blocks of 256"),
    "long-array": (model(more_pairs=[array(U32, 1 << 60)]), "1152921504606846976 elements"),
    "long-strings": (model(more_pairs=[array(STRING, 1 << 60)]), "1152921504606846976 elements"),
    "strings-beyond": (model(more_pairs=[array(STRING, 1 << 25)]), "truncated"),
    "nested": (model(more_pairs=[array(ARRAY, 1, struct.pack("<IQ", U8, 0))]), "holds arrays"),
    "kind": (model(more_pairs=[string("x") + struct.pack("<I", 13)]), "unknown kind 13"),
    "long-string": (model(more_pairs=[string("x") + struct.pack("<IQ", STRING, 1 << 60)]), "bytes long"),
    "bool": (model(more_pairs=[pair("x", BOOL, 2)]), "boolean of 2"),
    "nul-key": (model(more_pairs=[pair(b"a\0b", U32, 1)]), "0x00"),
    "nul-name": (extra(b"a\0b", (32,)), "0x00"), "escape-name": (extra(b"\x1b[31m", (32,)), "0x1b"),
    "bytes-name": (extra(b"\xff\xfe", (32,)), "0xff"), "no-name": (extra("", (32,)), "is empty"),
    "long-name": (extra("x" * 1000, (32,)), "1000 bytes long"),
    # One of several files of a model; sound ones are in e2e/split.py.
    "split": (model(keys={"split.count": (U16, 2)}), "cannot be found"),
    "split-part": (build([pair("split.count", U16, 2), pair("split.no", U16, 1)],
                         [("x", (32,), 0, floats((32,)))]), "part 2 of 2"),
    "split-beyond": (model(keys={"split.count": (U16, 2), "split.no": (U16, 2)}), "split.no"),
    "split-many": (model(keys={"split.count": (U16, 65)}), "up to 64 files"),
    "split-text": (model(keys={"split.count": (STRING, "2")}), "split.count"),
    "lost-00001-of-00002.gguf": (model(keys={"split.count": (U16, 2)}), "lost-00002-of-00002.gguf"),
}

# Files that contradict themselves: inspect works and says why, check counts a fault.
CONTRADICTIONS = {
    "no-arch": (model(keys={"general.architecture": None}), "architecture"),
    "arch-number": (model(keys={"general.architecture": (U32, 3)}), "architecture"),
    "nothing": (build([], []), "architecture"),
    "top-k-5": (model(keys={"expert_used_count": (U32, 5)}), "allowed are 1 to 4"),
    "top-k-0": (model(keys={"expert_used_count": (U32, 0)}), "allowed are 1 to 4"),
    "no-experts": (model(keys={"expert_count": (U32, 0)}), "missing"),
    "less-than-0": (model(keys={"expert_count": (I32, -4)}), "expert_count"),
    "text-experts": (model(keys={"expert_count": (STRING, "4")}), "expert_count"),
    "many-experts": (model(keys={"expert_count": (U64, 1 << 40)}), "out of range"),
    "other-experts": (model(keys={"expert_count": (U32, 8)}), "ffn_gate_inp"),
    "heads": (model(keys={"attention.head_count": (U32, 3), "attention.head_count_kv": (U32, 3)}),
              "do not divide"),
    "kv-heads": (model(keys={"attention.head_count_kv": (U32, 3)}), "do not divide"),
    "no-head": (model(keys={"attention.key_length": (U32, 0)}), "key_length"),
    "small-heads": (model(keys={"attention.head_count": (U32, 64),
                                "attention.head_count_kv": (U32, 64)}), "heads"),
    "rope": (model(keys={"rope.dimension_count": (U32, 10)}), "allowed are 2 to 8"),
    "rope-nan": (model(keys={"rope.freq_base": (F32, float("nan"))}), "not a finite number"),
    "epsilon": (model(keys={"attention.layer_norm_rms_epsilon": (F32, float("inf"))}), "finite"),
    "layers": (model(keys={"block_count": (U32, 3)}), "'blk.2.attn_norm.weight' is missing"),
    "no-layers": (model(keys={"block_count": (U32, 0)}), "block_count"),
    "missing": (model(shapes={"blk.1.ffn_down_exps": None}), "'blk.1.ffn_down_exps.weight' is missing"),
    "shape": (model(shapes={"blk.1.ffn_down_exps": (32, 64, 4)}), "64 x 32 x 4"),
    "fewer-tokens": (model(keys={"tokenizer.ggml.tokens": (ARRAY, (STRING, ["a"] * 47))}), "47 tokens"),
    "more-tokens": (model(keys={"tokenizer.ggml.tokens": (ARRAY, (STRING, ["a"] * 49))}), "49 tokens"),
    "tokens-numbers": (model(keys={"tokenizer.ggml.tokens": (ARRAY, (U32, [1]))}), "array of strings"),
}

# Sound files that this version cannot run: inspect says why, check finds nothing wrong.
UNSUPPORTED = {
    **{arch: (model(arch=arch), arch) for arch in ("deepseek2", "qwen2moe", "mamba", "gpt-oss")},
    "bias": (extra("blk.0.attn_q.bias", (32,), floats((32,))), "biases"),
    "IQ2_XXS": (model(hidden=256, data={"output": (16, bytes(66 * 48))}), "IQ2_XXS"),
    "TQ1_0": (model(hidden=256, data={"output": (34, bytes(54 * 48))}), "TQ1_0"),
    "type-31": (model(data={"output": (31, bytes(4096)), "token_embd": (32, bytes(4096))}), "type 3"),
}


def hostile():
    for name, (data, words) in UNREADABLE.items():
        path = write(name, data)
        for arguments in (["inspect", path], ["inspect", path, "--json"], ["check", path],
                          ["plan", path, "--memory", "1G"],
                          ["upcycle", path, "out", "--experts", "4", "--top-k", "2"]):
            status, out, err = run(*arguments)
            expect(status == 1 and not out and words in err and f"'{path}'" in err, arguments, status, out, err)
    for group, status_of_check in ((CONTRADICTIONS, 1), (UNSUPPORTED, 0)):
        for name, (data, words) in group.items():
            path = write(name, data)
            status, out, err = run("inspect", path, "--json")
            expect(status == 0 and not err, "inspect --json", name, status, err)
            told = json.loads(out) if status == 0 else {}
            expect(told.get("supported") is False and words in (told.get("reason") or ""), name, told)
            status, out, err = run("inspect", path)
            expect(status == 0 and b"no: " in out and not err, "inspect", name, status, out, err)
            status, out, err = run("check", path)
            expect(status == status_of_check and words in out.decode() and not err, "check", name, status, out, err)
            status, out, err = run("plan", path, "--memory", "1G")
            expect(status == 1 and not out and words in err, "plan", name, status, out, err)


def truncated(good):
    for n in [*range(0, len(good), 1000), len(good) - 1]:
        path = write("truncated", good[:n])
        for arguments in (["inspect", path, "--json"], ["check", path]):
            status, out, err = run(*arguments)
            expect(status == 1 and not out and err, n, arguments, status, out, err)


def json_of_anything():
    names = {b"a\0b\x1b[31m\n\"\\": "a\0b\x1b[31m\n\"\\", b"\xff\xed\xa0\x80": "\ufffd" * 4,
             "Größe 模型".encode(): "Größe 模型"}
    for data, text in names.items():
        path = write("name", model(keys={"general.name": (STRING, data)}))
        status, out, err = run("inspect", path, "--json")
        expect(status == 0 and json.loads(out)["name"] == text, data, out[:200], err)
        status, out, err = run("inspect", path)
        expect(status == 0 and b"\x1b" not in out and b"\0" not in out, data, out, err)
        out.decode()
    path = write(b"file-\xff\x1b", model(arch="other"))
    status, out, err = run("inspect", path, "--json")
    told = json.loads(out)
    expect(status == 0 and "\ufffd" in told["file"] and told["architecture"] == "other", out[:200])
    numbers = json.loads(run("inspect", "type-31", "--json")[1])
    expect(set(numbers["quantisation"]["output"]) == {"type 31"}, numbers["quantisation"])


def inspect_sums():
    told = json.loads(run("inspect", "good", "--json")[1])
    expert = 3 * 32 * 64 * 4
    expect(told["supported"] and told["reason"] is None, told["reason"])
    expect(told["bytes"]["expert"] == expert and told["bytes"]["token_cycle"] == 2 * 2 * expert,
           told["bytes"])
    expect(sum(t["size"] for t in told["tensors"])
           == told["bytes"]["dense"] + 2 * 4 * expert, told["bytes"])
    expect(told["quantisation"]["experts"]["F32"] == {"tensors": 6, "bytes": 8 * expert},
           told["quantisation"])


def check_numbers():
    """NaN and infinity in every type: each is found, at the offset where it stands."""
    for wrong in (0x7c00, 0xfc00, 0x7e01):
        for name, (kind, block, size, scales) in BLOCKS.items():
            n, at = 4 * 256 // block, 3 * 256 // block * size + (scales[-1] if scales else size * 2)
            data = bytearray(n * size)
            struct.pack_into("<H", data, at, wrong if name != "BF16" else wrong | 0x7f80)
            made = build([pair("general.architecture", STRING, "llama")],
                         [("a", (32,), 0, floats((32,))), ("w", (256, 4), kind, bytes(data))])
            path = write("numbers", made)
            status, out, err = run("check", path)
            offset = len(made) - len(data) - (-len(data) % 32) + at
            expect(status == 1 and f"w: offset {offset}:" in out.decode(), name, hex(wrong), offset, out, err)
    data = floats((32, 48), 1.0)
    nans = b"".join((struct.pack("<f", float("nan")) if i % 100 == 7 else data[:4]) for i in range(32 * 48))
    status, out, err = run("check", write("nans", model(data={"output": (0, nans)})))
    expect(status == 1 and b"output.weight: 16 such faults" in out and b": 16 faults" in out, out, err)
    expect(run("check", "good")[0] == 0, "check good")


def plan_floor():
    status, out, err = run("plan", "good", "--memory", "1M", "--json")
    told = json.loads(out)
    floor = told["floor"]
    expect(status == 1 and told["fits"] is False and str(floor) in err, told, err)
    for size, wanted in ((floor, 0), (floor - 1, 1), (f"{-(-floor >> 20)}M", 0), (f"{(floor - 1) >> 20}M", 1)):
        status, out, err = run("plan", "good", "--memory", str(size), "--json")
        told = json.loads(out)
        expect(status == wanted and told["fits"] == (wanted == 0) and told["floor"] == floor, size, status, told)
        if wanted == 0:
            expect(sum(told["use"].values()) == told["limit"], "the uses do not add up", told)
    long = write("long", model(keys={"context_length": (U32, 65536)}))
    for size in ("64M", "256M", "1G", "60%"):
        told = json.loads(run("plan", long, "--memory", size, "--json")[1])
        expect(told["fits"] and told["context"] >= 2048, size, told)
        expect(f"{told['context']} positions".encode() in run("plan", long, "--memory", size)[1], size)
    status, out, err = run("plan", long, "--memory", "1G", "--context", "4096")
    expect(status == 0 and b"4096 positions" in out, out, err)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def upcycle():
    dense = write("dense", model(experts=0))
    before = digest(dense)
    base = ["--experts", "8", "--top-k", "2"]
    seen = {}
    for how in ([], ["--router-seed", "7"], ["--router", "random"], ["--order", "softmax-topk"], ["--layers", "1"]):
        status, out, err = run("upcycle", dense, "out", *base, *how)
        expect(status == 0 and out and not err, how, status, err)
        seen[digest("out")] = how
        run("upcycle", dense, "again", *base, *how)
        expect(digest("again") == digest("out"), "not the same twice", how)
        expect(run("check", "out")[0] == 0, "check", how)
        told = json.loads(run("inspect", "out", "--json")[1])
        expect(told["supported"] and told["experts"] == 8 and told["top_k"] == 2, how, told["reason"])
    expect(len(seen) == 5, "options without effect", seen)
    kept = digest("out")
    os.symlink("dense", "link")
    os.link("dense", "hard")
    for out in ("dense", "./dense", "link", "hard", ".", "/dev/null", "absent/x"):
        status, _, err = run("upcycle", dense, out, *base)
        expect(status == 1 and err, "to", out, status, err)
    for how in (["--experts", "8"], ["--experts", "6", "--top-k", "4"], ["--experts", "9", "--top-k", "3"],
                ["--experts", "2", "--top-k", "4"], ["--experts", "0", "--top-k", "0"],
                ["--experts", "99999", "--top-k", "2"], ["--experts", "-8", "--top-k", "2"],
                [*base, "--router", "x"], [*base, "--order", "x"], [*base, "--layers", "1-0"],
                [*base, "--layers", ""], [*base, "--router-seed", "4294967296"]):
        status, _, err = run("upcycle", dense, "out", *how)
        expect(status == 2 and err, how, status, err)
    status, _, err = run("upcycle", dense, "out", *base, "--layers", "0-2")
    expect(status == 1 and "no layer 2" in err, status, err)
    status, _, err = run("upcycle", "good", "out", *base)
    expect(status == 1 and "experts already" in err, status, err)
    # A full disk, or here a limit on files, leaves neither a part nor the old file changed.
    status, _, err = run("upcycle", dense, "out", *base,
                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
    expect(status == 1 and "'out'" in err and "too large" in err, status, err)
    expect(digest("out") == kept and digest(dense) == before, "a file was changed")
    expect(not [name for name in os.listdir() if name.startswith("out.")], os.listdir())


def main():
    with tempfile.TemporaryDirectory(prefix="moed-files-") as folder:
        os.chdir(folder)
        write("good", model())
        usage()
        hostile()
        truncated(model(layers=1))
        json_of_anything()
        inspect_sums()
        check_numbers()
        plan_floor()
        upcycle()
        os.chdir("/")
    sys.exit(f"{faults} faults" if faults else 0)


main()
