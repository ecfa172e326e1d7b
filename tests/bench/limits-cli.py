# SPDX-License-Identifier: MIT
"""`limits` prints one JSON object with every figure that others build upon, and refuses nonsense.
Usage: limits-cli.py LIMITS"""
import json
import os
import subprocess
import sys
import tempfile

INT8 = {"avx2": {"registers", "l2_1_column", "l2_4_columns"},
        "avxvnni": {"registers", "l2_1_column", "l2_4_columns"},
        "avx512vnni": {"registers", "l2_1_column", "l2_4_columns"},
        "amx": {"registers", "l2_32_columns"}}
F32 = {"avx2": {"registers"}, "avx512": {"registers"}}
FLAGS = {"avx2": "avx2", "avxvnni": "avx_vnni", "avx512vnni": "avx512_vnni", "avx512": "avx512f"}
faults = []


def expect(condition, text):
    if not condition:
        faults.append(text)
        print("FAULT:", text)


def run(*arguments):
    return subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)


def flags():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("flags"):
                return set(line.split(":")[1].split())
    return set()


def check_peak(name, have, want):
    known = flags()
    expect(set(have) == set(want), f"{name}: tiers {sorted(have)}")
    for tier, loops in want.items():
        for who in ("one", "all"):
            rates = have.get(tier, {}).get(who, {})
            expect(set(rates) == loops, f"{name}.{tier}.{who}: {rates}")
            for key, rate in rates.items():
                expect(rate is None or rate > 0, f"{name}.{tier}.{who}.{key}: {rate}")
                if tier in FLAGS:
                    expect((rate is not None) == (FLAGS[tier] in known),
                           f"{name}.{tier}.{who}.{key} is {rate}, flags disagree")


with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, "file")
    with open(path, "wb") as out:
        out.write(os.urandom(4 << 20))
    done = run("--memory", "32M", "--threads", "2", "--file", path, "--seconds", "0.05")
expect(done.returncode == 0, f"status {done.returncode}: {done.stderr}")
figures = json.loads(done.stdout)
expect(figures["threads"] == 2, "threads")
expect(figures["sweep_bytes"] == 32 << 20, "sweep_bytes")
for which in ("one", "all"):
    expect(figures["dram_read_gb_per_s"][which] > 0, "dram_read_gb_per_s")
if os.uname().machine == "x86_64":
    check_peak("int8_gmac_per_s", figures["int8_gmac_per_s"], INT8)
    check_peak("f32_fma_gflop_per_s", figures["f32_fma_gflop_per_s"], F32)
expect(len(figures["reads"]) >= 6, "reads")
for read in figures["reads"]:
    expect(read["gb_per_s"] > 0 and read["bytes"] > 0 and read["depth"] > 0, f"a read: {read}")
BAD = (["--nonsense"], ["--memory", "lots"], ["--threads", "0"], ["--seconds", "0"], ["extra"])
for bad in BAD:
    expect(run(*bad).returncode == 2, f"{bad} is taken")
expect(run("--file", "/nonexistent").returncode == 1, "a file that is not there")
expect(run("--help").stdout.startswith("Usage: limits"), "--help")
print(f"limits, {len(faults)} faults")
sys.exit(1 if faults else 0)
