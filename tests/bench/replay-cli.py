# SPDX-License-Identifier: MIT
"""`replay` comes within a point of what others published for recorded traces (where they are at
hand), its policy is never worse than the plain ones on traces that nobody chose it by, and it says
what is wrong with a trace.  Usage: replay-cli.py REPLAY MAKE-TRACE"""
import json
import os
import subprocess
import sys
import tempfile

REPLAY, MAKE = sys.argv[1:3]
HERE = os.path.dirname(os.path.abspath(__file__))
# Where the recordings are: beside the sources, not part of them.
TRACES = os.environ.get("MOED_TRACES", next(
    (path for path in (os.path.join(HERE, "../" * up, "shared/traces") for up in (3, 4))
     if os.path.isdir(path)), "shared/traces"))
HEAD = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
# file: memory in MiB: published hit rates in percent
PUBLISHED = {
    "qwen3-30b-a3b.top6.csv": {2000: {"belady": 79.4, "lru": 56.5, "lfu": 58.6, "layer-lfu": 63.3},
                               4000: {"belady": 92.7, "lru": 80.3, "lfu": 80.8, "layer-lfu": 81.7}},
    "gpt-oss-120b.top2.csv": {4000: {"belady": 73.0, "lru": 51.7, "lfu": 49.8, "layer-lfu": 50.8}},
}
# What the line, and what the complaint.
HOSTILE = [
    ("", "no routes"),
    (HEAD, "no routes"),
    ("a,b,c\n", "line 1: the first line names the columns, and none is 'phase'"),
    (HEAD + "0,0,0,0,0,1,0.5,0,0\n0,0,0\n", "line 3: it has not as many fields"),
    (HEAD + "0,2,0,0,0,1,0.5,0,0\n", "line 2: phase"),
    (HEAD + "0,0,0,1024,0,1,0.5,0,0\n", "line 2: layer"),
    (HEAD + "0,0,0,0,64,1,0.5,0,0\n", "line 2: slot"),
    (HEAD + "0,0,0,0,0,4096,0.5,0,0\n", "line 2: expert"),
    (HEAD + "0,0,0,0,0,-1,0.5,0,0\n", "line 2: expert"),
    (HEAD + "0,0,0,0,0,1e1,0.5,0,0\n", "line 2: expert"),
    (HEAD + "0,0,0,0,0,1,0.5,0,99999999999999999999\n", "line 2: expert_bytes"),
    (HEAD + "0,0,0,0,0,1,0.5,0,0\n0,0,0,0,1,1,0.5,0,0\n", "expert 1 twice"),
    (HEAD + "0,0,0,0,0,1,0.5,0,0\n0,0,0,0,0,2,0.5,0,0\n", "slot 0 twice"),
    (HEAD + "0,0,0,0,0,1,0.5,0,0" + " " * 2000 + "\n", "line 2: it is too long"),
    (HEAD + "0,0,0,0,0,1,0.5,\x000,0\n", "line 2: it"),
    (HEAD + "," * 40 + "\n", "line 2: it has too many fields"),
    ("# layer=5000 expert_bytes=3\n" + HEAD, "line 1: this is no layer"),
    ("# layer=1 expert_bytes=0\n" + HEAD, "line 1: this is no size"),
    ("# n_expert=many\n" + HEAD, "line 1: this is no number of experts"),
]
# Kinds of made traces, and how much below the better of LRU and LFU is still chance.
MADE = [("uniform", []), ("zipf", []), ("drift", []), ("topics", []), ("bursts", []),
        ("cyclic", []), ("repeat", []), ("shift", []),
        ("zipf", ["--experts", "8", "--k", "2", "--layers", "32"]),
        ("topics", ["--experts", "256", "--k", "8", "--layers", "6", "--tokens", "200"])]
CHANCE = 0.005
faults = []


def expect(condition, text):
    if not condition:
        faults.append(text)
        print("FAULT:", text)


def run(*arguments, status=0):
    done = subprocess.run([REPLAY, *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    expect(done.returncode == status, f"{arguments}: status {done.returncode}: {done.stderr}")
    return done


def replay(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def rates(size):
    return {name: policy["hit_rate"] for name, policy in size["policies"].items()}


def check_published(path, published):
    for memory, want in published.items():
        have = rates(replay(path, "--memory", f"{memory}M")["sizes"][0])
        for policy, rate in want.items():
            expect(abs(100 * have[policy] - rate) <= 1.0,
                   f"{path}, {memory} MiB, {policy}: {100 * have[policy]:.1f}, published {rate}")


def check_goals(paths):
    """A quarter of the way from LRU to Belady; below a token cycle, where LRU has nothing, 25 %."""
    distances = []
    for path, restart in zip(paths, ("64", "32")):
        for size in replay(path, "--restart", restart)["sizes"]:
            after, before = size["restart"]["after"], size["restart"]["before"]
            expect(after >= before - 0.05, f"{path}, {size['share']}: {size['restart']}")
    for path in paths:
        for size in replay(path)["sizes"]:
            have = rates(size)
            distances.append(size["policies"]["ours"]["distance"])
            expect(have["ours"] >= max(have["lru"], have["lfu"]), f"{path}: {size['share']} {have}")
    mean = sum(distances) / len(distances)
    print(f"distance from LRU to Belady: {mean:.3f} on average")
    expect(mean >= 0.25, f"distance {mean:.3f}")
    below = rates(replay(paths[0], "--share", "0.04")["sizes"][0])
    expect(below["lru"] < 0.01 and below["ours"] >= 0.25, f"below a token cycle: {below}")


def check_made(folder, kind, options):
    path = os.path.join(folder, kind + ".csv")
    with open(path, "w", encoding="ascii") as out:
        subprocess.run([sys.executable, MAKE, kind, *options], stdout=out, check=True)
    worst = 1.0
    for size in replay(path, "--share", "0.02,0.05,0.1,0.2,0.3,0.4,0.6,0.8,1")["sizes"]:
        have = rates(size)
        above = have["ours"] - max(have["lru"], have["lfu"])
        worst = min(worst, above)
        expect(above >= -CHANCE, f"{kind} {options}, share {size['share']}: {have}")
        # A layer's part may hold less than the layer wants: the others are used without a place.
        del have["layer-lfu"]
        expect(have["belady"] >= max(have.values()) - 1e-9, f"{kind}: Belady is beaten: {have}")
        counts = size["policies"]["ours"]
        expect(counts["bytes"] == (counts["wanted"] - counts["hits"]) * 2000000, f"{kind}: bytes")
    print(f"{kind} {' '.join(options)}: {100 * worst:+.1f} points at worst")
    return path


with tempfile.TemporaryDirectory() as directory:
    bad = os.path.join(directory, "bad.csv")
    for text, complaint in HOSTILE:
        with open(bad, "w", encoding="latin-1") as file:
            file.write(text)
        error = run(bad, status=1).stderr
        expect(complaint in error and "bad.csv" in error, f"{complaint!r} is not in {error!r}")
    with open(bad, "w", encoding="ascii") as file:
        file.write(HEAD + "0,1,0,0,0,1,0.5,1,0\n")
    expect("--share" in run(bad, "--memory", "1G", status=1).stderr, "sizes that are not there")
    expect("nothing" not in run("/nonexistent.csv", status=1).stdout, "no file")
    made = [check_made(directory, kind, options) for kind, options in MADE]
    timed = replay(made[3], "--share", "0.2", "--disk", "3", "--compute", "20")
    size = timed["sizes"][0]
    ours, ahead = size["policies"]["ours"], size["prefetch"]
    expect(ours["ms_per_token"] >= ours["bound_ms_per_token"] * 0.999, f"below its bound: {ours}")
    expect(ahead["issued"] > 0 and ahead["useful"] > ahead["issued"] / 2, f"prefetch: {ahead}")
    expect(ahead["hit_rate"] > ours["hit_rate"], f"prefetch: {ahead}, {ours}")
    expect(ahead["ms_per_token"] < ours["ms_per_token"], f"prefetch is slower: {ahead}, {ours}")
    expect(timed == replay(made[3], "--share", "0.2", "--disk", "3", "--compute", "20"), "twice")
    # A file of its own with the same routes gives the same.
    filled = replay(made[1], "--share", "0.5", "--filled")["sizes"][0]
    expect(rates(filled)["ours"] > 0, "--filled")

recorded = [os.path.join(TRACES, name) for name in PUBLISHED]
if all(os.path.exists(path) for path in recorded):
    for path, published in zip(recorded, PUBLISHED.values()):
        check_published(path, published)
    check_goals(recorded)
else:
    print(f"no recorded traces in {TRACES}: what others published is not compared")

for bad in ([], ["a", "b"], ["--nonsense"], ["a", "--share", "2"], ["a", "--share", "0"],
            ["a", "--memory", "lots"], ["a", "--disk", "1"], ["a", "--compute", "1"],
            ["a", "--recall", "x"], ["a", "--share", ",".join(["0.1"] * 65)]):
    run(*bad, status=2)
expect(run("--help").stdout.startswith("Usage: replay"), "--help")
print(f"replay, {len(faults)} faults")
sys.exit(1 if faults else 0)
