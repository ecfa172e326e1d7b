# SPDX-License-Identifier: MIT
"""The oracle: an upcycled model (--router exact) says bit for bit what its dense model says, however
it is run; and the counters prove that experts were read, evicted and routed to in different ways.
Usage: oracle.py MOE-MODEL"""
import json
import os
import re
import subprocess
import sys
import tempfile

import tinygguf

MOE_MODEL = sys.argv[1]
PROMPTS = [[3 + (7 * i * i + 11 * i) % 270 for i in range(n)] for n in (1, 9, 40, 71, 16)]
GREEDY = 12
faults = []


def moe_model(*arguments, tier=None):
    environment = dict(os.environ)
    if tier:
        environment["MOED_CPU"] = tier
    done = subprocess.run([MOE_MODEL, *arguments], capture_output=True, text=True, env=environment,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"moe-model {' '.join(arguments)}: status {done.returncode}\n{done.stderr}")
    return done


def evaluate(path, ids, *options, tier=None):
    done = moe_model("eval", path, "--prompts", ids, "--greedy", str(GREEDY), "--stats", "--json",
                     *options, tier=tier)
    return json.loads(done.stdout), json.loads(done.stderr.splitlines()[-1])


def expect(condition, text):
    if not condition:
        faults.append(text)
        print("FAULT:", text)


def same(answers, dense, how):
    """The same logits of every position, and the same tokens."""
    expect(len(answers) == len(dense), f"{how}: {len(answers)} answers")
    for answer, reference in zip(answers, dense):
        expect(answer["logits"] == reference["logits"], f"{how}: the logits differ")
        expect(answer["greedy"] == reference["greedy"], f"{how}: the tokens differ")


def routed(answers, k, how):
    """The routing varies, and every weight is exactly 1/k."""
    sets = set()
    for answer in answers:
        for number, layer in enumerate(answer["experts"]):
            for position in layer:
                sets.add((number, *sorted(position["ids"])))
                expect(position["weights"] == [1 / k] * k, f"{how}: weights {position['weights']}")
    return sets


def floor_of(path, ids, *options):
    """The smallest memory, as the refusal of a smaller one names it."""
    done = subprocess.run([MOE_MODEL, "eval", path, "--prompts", ids, "--memory", "1M", *options],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    named = re.search(r"\((\d+) bytes\)", done.stderr)
    if done.returncode != 1 or not named:
        sys.exit(f"1M should be refused, naming what works: {done.returncode} {done.stderr}")
    return named.group(1)


def main():
    with tempfile.TemporaryDirectory() as directory:
        dense_path = os.path.join(directory, "dense.gguf")
        ids = os.path.join(directory, "ids.json")
        tinygguf.write(dense_path, layers=4, hidden=256, heads=4, kv_heads=2, ff=1024)
        with open(ids, "w", encoding="utf-8") as file:
            json.dump({"prompts": PROMPTS}, file)
        dense, _ = evaluate(dense_path, ids)
        expect(all(len(set(a["greedy"])) > 1 for a in dense[1:]), "the model says one thing only")

        kinds = {
            "8 experts, top 2": (8, 2),
            "8 experts, top 4, softmax first": (8, 4, "--order", "softmax-topk"),
            "4 experts, top 1, layers 1 and 3": (4, 1, "--layers", "1,3"),
            "16 experts, top 2, another seed": (16, 2, "--router-seed", "7"),
        }
        for name, (experts, k, *options) in kinds.items():
            path = os.path.join(directory, "moe.gguf")
            if os.path.exists(path):
                os.unlink(path)
            moe_model("upcycle", dense_path, path, "--experts", str(experts), "--top-k", str(k),
                      "--router", "exact", *options)
            small = floor_of(path, ids)
            runs = {
                "ample": ((), None),
                "smallest cache": (("--memory", small), None),
                "smallest cache, batch":
                    (("--memory", floor_of(path, ids, "--batch"), "--batch"), None),
                "smallest cache, chunks of 3": (("--memory", small, "--chunk", "3"), None),
                "smallest cache, one thread, pread":
                    (("--memory", small, "--threads", "1", "--io", "pread"), None),
                "scalar, batch": (("--batch", "--threads", "2"), "scalar"),
                "avx2 at most": ((), "avx2"),
            }
            for how, (how_options, tier) in runs.items():
                answers, stats = evaluate(path, ids, *how_options, tier=tier)
                same(answers, dense, f"{name}, {how}")
                sets = routed(answers, k, f"{name}, {how}")
                layers = len({one[0] for one in sets})
                expect(len(sets) > layers, f"{name}, {how}: every token took the same experts")
                expect(stats["bytes_read"] > 0, f"{name}, {how}: nothing was read")
                if "smallest" in how and experts > 4:
                    expect(stats["misses"] > layers * experts,
                           f"{name}, {how}: {stats['misses']} misses: nothing was evicted")
    print(f"{len(kinds) * len(runs)} runs, {len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())
