# SPDX-License-Identifier: MIT
"""`peers` on a tiny model: moed beside an engine that is made up here, whose figures are known.
Usage: peers-cli.py BUILD-DIRECTORY"""
import json
import os
import subprocess
import sys
import tempfile

import gguf

HERE = os.path.dirname(os.path.abspath(__file__))
ENGINE = """#!/bin/sh
case "$*" in
*-npl*) echo '| PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s |'
        echo '| 16 | 8 | 2 | 48 | 1.0 | 32.0 | 4.0 | 4.0 | 5.0 | 9.6 |' ;;
*-d*) echo 'noise before'
      echo '[{"n_prompt": 0, "n_gen": 8, "n_depth": 0, "samples_ts": [1.0, 2.0, 3.0]},'
      echo '{"n_prompt": 100, "n_gen": 8, "test": "tg8@pp100", "samples_ts": [0.5]}]' ;;
*) echo '[{"n_prompt": 16, "n_gen": 0, "samples_ts": [10.0]}]' ;;
esac
"""
SECTIONS = """# SPDX-License-Identifier: MIT
[made up]
about = answers at once
directory = MADE_UP_BIN
program = {directory}/engine
flags = --two words
prefill = {directory}/engine -m {model} -t {threads} -p {prompts} {flags}
decode = {directory}/engine -d {contexts} -n {tokens} {each-context}
each-context = -gp {context},{tokens}
sequences = {directory}/engine -c {room} -npl {sequences} -ntg {tokens} -npp {prompt}
[not here]
like = made up
directory = NOT_HERE_BIN
[broken]
like = made up
prefill = false
"""
faults = []


def expect(condition, text):
    if not condition:
        faults.append(text)
        print("FAULT:", text)


def run(*arguments):
    return subprocess.run([sys.executable, os.path.join(HERE, "peers"), *arguments],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)


def row(results, test, **key):
    found = [r for r in results if r["test"] == test and all(r.get(k) == v for k, v in key.items())]
    expect(len(found) == 1, f"{test} {key}: {len(found)} rows")
    return found[0] if found else {"engines": {"moed": {}, "made up": {}}}


def check(figures, model):
    results = figures["results"]
    for key in ("cpu", "cpus", "features", "kernel", "memory_bytes"):
        expect(figures["machine"].get(key), f"the machine's {key}")
    expect(figures["model"]["weight_bytes_per_token"] == model.weight_bytes(), "bytes of a token")
    expect(figures["limits"]["dram_read_gb_per_s"]["all"] > 0, "no limits")
    expect("not here" in figures["missing"], "it does not say that an engine is missing")
    told = [f["engine"] for f in figures.get("failed", ())]
    expect(told == ["broken"] * 2, f"failures: {told}")
    prefill = row(results, "prefill", tokens=16)
    ours = prefill["engines"]["moed"]
    expect(ours["min"] <= ours["median"] <= ours["max"] and ours["n"] == 2, f"spread: {ours}")
    expect(prefill["best_peer"] == "made up" and prefill["engines"]["made up"]["median"] == 10,
           f"prefill: {prefill}")
    expect(abs(prefill["ratio"] / (ours["median"] / 10) - 1) < 1e-3, f"ratio: {prefill}")
    first = row(results, "prefill", ttft_tokens=16)
    expect(first["engines"]["made up"]["median"] == 1600, f"first token: {first}")
    decode = row(results, "decode", context=0)
    expect(decode["engines"]["made up"]["median"] == 2, f"decode: {decode}")
    expect(decode["engines"]["moed"]["share_of_dram"] > 0, f"decode: {decode}")
    expect(row(results, "decode", context=100)["engines"]["made up"]["median"] == 0.5, "context")
    both = row(results, "sequences", sequences=2)
    expect(both["engines"]["made up"]["median"] == 4, f"sequences: {both}")
    expect(both["bound_tokens_per_s"] > 0 and both["engines"]["moed"]["share_of_bound"] > 0,
           f"sequences: {both}")
    expect(row(results, "peak")["engines"]["moed"]["median"] > 1 << 20, "peak memory")
    engine = figures["engines"]["made up"]
    expect("--two words" in engine["commands"]["prefill"], f"commands: {engine}")
    expect("-gp 100,512" in engine["commands"]["decode"], f"commands: {engine}")


with tempfile.TemporaryDirectory(dir="/var/tmp" if os.access("/var/tmp", os.W_OK) else None) as d:
    path, saved, ini = (os.path.join(d, name) for name in ("model.gguf", "saved", "peers.ini"))
    done = subprocess.run([sys.executable, os.path.join(HERE, "make-model"), path, "--layers", "2"],
                          capture_output=True, text=True)
    expect(done.returncode == 0, f"make-model: {done.stderr}")
    with open(ini, "w", encoding="utf-8") as out:
        out.write(SECTIONS)
    with open(os.path.join(d, "engine"), "w", encoding="utf-8") as out:
        out.write(ENGINE)
    os.chmod(os.path.join(d, "engine"), 0o755)
    common = ("--build", sys.argv[1], "--peers", ini, "--directory", f"made up={d}",
              "--model", path)
    done = run(*common, "--only", "limits,prefill,decode,sequences,union", "--rounds", "2",
               "--prefill", "16", "--contexts", "0,100", "--sequences", "2", "--tokens", "512",
               "--retries", "0", "--sweep", "32M", "--save", saved)
    expect(done.returncode == 0, f"status {done.returncode}: {done.stderr}")
    check(json.loads(done.stdout), gguf.Model(path))
    again = run("--from", saved)
    expect(again.returncode == 0 and json.loads(again.stdout)["results"], f"--from: {again.stderr}")
    text = run("--from", saved, "--markdown")
    expect("| decode after 100 |" in text.stdout and "made up" in text.stdout, text.stdout)
    listed = run(*common, "--list")
    expect("made up: found" in listed.stdout and "not here: neither" in listed.stdout,
           f"--list: {listed.stdout}{listed.stderr}")
    for bad, status in ((["--only", "nothing"], 2), (["--engines", "none"], 1),
                        (["--rounds", "0"], 2), (["--prefill", "a"], 2), (["--noise", "0"], 2),
                        (["--directory", "x"], 2), (["--build", "/nonexistent"], 1),
                        (["--peers", "/nonexistent"], 1)):
        done = run(*common, *bad)
        expect(done.returncode == status and done.stderr, f"{bad}: {done.returncode}")
expect(run().returncode == 2, "without a model")
expect("--markdown" in run("--help").stdout, "--help")
print(f"peers, {len(faults)} faults")
sys.exit(1 if faults else 0)
