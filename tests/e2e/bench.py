# SPDX-License-Identifier: MIT
"""What moectl bench says of a real moed: counts that have to be exact, and where the time goes in
layers with and without experts, resident and streamed.  Speeds are printed, never judged.
Usage: bench.py MOED MOECTL MOE-MODEL"""
import os
import sys

import service

PROMPT, TOKENS, SEQUENCES, ROUNDS, CONTEXT = 24, 6, 3, 2, 40
OUTSIDE = {"schedule", "embed", "head", "sample"}
DENSE = {"norm", "qkv", "rope", "attention", "output", "gate_up", "down", "sum"}
MOE = DENSE | {"router", "cache"}


def leaves(time):
    return {k: v for k, v in time.items() if "share" in v}


def check_context(name, time, layers, may_wait):
    """Every bucket is filled, those of reads where there are any; nothing else is there."""
    service.equal(set(time), OUTSIDE | layers, f"{name}: parts")
    service.expect(all(v["us_per_token"] > 0 for v in leaves(time).values()), f"{name}: {time}")
    for layer in layers:
        own = time[layer]
        wanted = MOE | {"wait"} if layer == "moe" else DENSE
        service.equal(set(own), wanted, f"{name}, {layer}: parts")
        for part, figures in own.items():
            if part != "wait" or not may_wait:
                service.equal(figures["us_per_token"] > 0, part != "wait",
                              f"{name}, {layer}, {part} is filled")
    shares = sum(v["share"] for v in leaves(time).values()) + sum(
        v["share"] for layer in layers for v in time[layer].values())
    service.expect(abs(shares - 1) < 1e-9, f"{name}: shares make {shares}")


def check(daemon, layers, streamed, what):
    answer = daemon.json("bench", "--json", "--breakdown", "--prompt-tokens", str(PROMPT),
                         "--tokens", str(TOKENS), "--sequences", str(SEQUENCES), "--rounds",
                         str(ROUNDS), "--context", str(CONTEXT))
    print(what, answer["prefill_tokens_per_s"], answer["decode_tokens_per_s"], flush=True)
    requests = SEQUENCES * ROUNDS
    service.equal(answer["prompt_tokens"], requests * PROMPT, f"{what}: prompt tokens")
    service.equal(answer["generated"], requests * TOKENS, f"{what}: generated")
    breakdown = answer["breakdown"]
    # The first token of an answer comes of the prompt.
    service.equal(breakdown["decode"]["tokens"], requests * (TOKENS - 1), f"{what}: decoded")
    service.equal(breakdown["prefill"]["tokens"], requests * PROMPT, f"{what}: prefilled")
    for name in ("decode", "prefill"):
        check_context(f"{what}, {name}", breakdown[name]["time"], layers, streamed)
    busy = sum(b["tokens"] * b["us_per_token"] for b in (breakdown["decode"], breakdown["prefill"]))
    service.expect(0 < busy / 1e6 <= answer["wall_s"], f"{what}: busy {busy} us of {answer}")
    if "moe" in layers:
        waits = [b["time"]["moe"]["wait"]["us_per_token"]
                 for b in (breakdown["decode"], breakdown["prefill"])]
        service.equal(max(waits) > 0, streamed, f"{what}: waits {waits}")
    service.equal(answer["bytes_read"] > 0, streamed, f"{what}: reads")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory)
        mixed = os.path.join(directory, "mixed.gguf")
        programs.model("upcycle", dense, mixed, "--experts", "8", "--top-k", "2", "--layers", "1,3",
                       "--router", "random")
        for path, layers in ((dense, {"dense"}), (mixed, {"dense", "moe"})):
            with service.Service(programs, directory, "--model", path) as daemon:
                check(daemon, layers, False, "resident " + os.path.basename(path))
                text = daemon.moectl("bench", "--breakdown", "--tokens", "2").stdout
                service.expect(all(f"\n{layer} " in text for layer in layers), text)
                products = daemon.status()["kernels"]["products"]
                # Matrices are Q4_1, the output Q8_0, routers F32.
                wanted = {"Q4_1", "Q8_0"} | ({"F32"} if "moe" in layers else set())
                service.equal(set(products), wanted, "types in use")
                for way in [p[name] for p in products.values() for name in ("decode", "prefill")]:
                    rows, columns = map(int, way["tile"].split("x"))
                    service.expect(way["kernel"] and rows >= 1 and columns >= 1, way)
                before, after = daemon.status()["time"], daemon.status()["time"]
                service.expect(before["idle_ns"] > 0 and after["decode"] == before["decode"],
                               f"an idle daemon counts {before}, {after}")
                service.equal(daemon.stop(), 0, "exit status")
        with service.Service(programs, directory, "--model", mixed, "--memory",
                             str(programs.floor(mixed))) as daemon:
            check(daemon, {"dense", "moe"}, True, "streamed")
            service.equal(daemon.moectl("bench", "--prompt-tokens", "1000000").returncode, 1,
                          "a prompt longer than the context")
            service.equal(daemon.moectl("bench", "--context", "1000000").returncode, 1,
                          "a context longer than the context")
            service.equal(daemon.stop(), 0, "exit status")
    service.verdict("bench")


main()
