# SPDX-License-Identifier: MIT
"""What people see of the experts: trace, experts and top on a small model that is streamed, beside
what status counts.  Usage: look.py MOED MOECTL MOE-MODEL"""
import collections
import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import service

LAYERS, EXPERTS, K = 4, 8, 2
COLUMNS = ["turn", "phase", "step", "layer", "slot", "expert", "weight", "residency",
           "expert_bytes"]


def parse(text):
    """(comments, rows) of a trace"""
    lines = text.splitlines()
    comments = [line for line in lines if line.startswith("#")]
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    service.equal(rows[0], COLUMNS, "the columns")
    return comments, [dict(zip(COLUMNS, (float(v) if "." in v else int(v) for v in row)))
                      for row in rows[1:]]


def check_rows(rows, what, phases):
    """phases: tokens of the prompt, of the answer"""
    tokens = collections.defaultdict(list)
    for row in rows:
        tokens[row["turn"], row["phase"], row["step"]].append(row)
    service.equal([sum(phase == p for _, p, _ in tokens) for phase in (0, 1)], list(phases),
                  f"{what}: tokens")
    for key, token in tokens.items():
        service.equal([(r["layer"], r["slot"]) for r in token],
                      [(y, i) for y in range(LAYERS) for i in range(K)], f"{what}: {key}")
        for y in range(LAYERS):
            chosen = token[y * K:(y + 1) * K]
            weights = [r["weight"] for r in chosen]
            service.expect(abs(sum(weights) - 1) < 1e-6, f"{what}: weights {weights}")
            service.expect(len({r["expert"] for r in chosen}) == K and
                           all(0 <= r["expert"] < EXPERTS for r in chosen), f"{what}: {chosen}")
        service.expect(all((r["residency"] == 1) == (r["expert_bytes"] == 0) for r in token),
                       f"{what}: bytes of what is there")


def uses(experts):
    return collections.Counter({(y["layer"], x): n for y in experts["layers"]
                                for x, n in enumerate(y["uses"])})


def count(rows):
    return collections.Counter((r["layer"], r["expert"]) for r in rows)


def test_trace(daemon, directory):
    before = daemon.json("experts", "--json")
    status = daemon.status()
    done = daemon.moectl("trace", "-n", "7", "--raw", "--prompt", "the king in the thing")
    service.equal((done.returncode, done.stderr), (0, ""), "trace")
    comments, rows = parse(done.stdout)
    service.equal(comments[0], "# route_trace v1", "the first line")
    service.expect(f"n_layer={LAYERS} n_expert={EXPERTS} n_expert_used={K}" in comments[1],
                   comments[1])
    service.equal(len(comments), 2 + LAYERS, "comments")
    after = daemon.status()
    prompt = after["tokens"]["prompt"] - status["tokens"]["prompt"]
    check_rows(rows, "trace", (prompt, 7))
    service.equal(sum(r["phase"] for r in rows), 7 * K * LAYERS, "lines of the answer")
    service.equal(after["tokens"]["generated"] - status["tokens"]["generated"], 8, "generated")
    experts = daemon.json("experts", "--json")
    service.equal(uses(experts) - uses(before), count(rows), "what is counted")
    # Into a file, from one, past the end of an answer and with the template.
    text, out = os.path.join(directory, "text"), os.path.join(directory, "out.csv")
    with open(text, "w", encoding="utf-8") as f:
        f.write("the king in the thing")
    done = daemon.moectl("trace", "--file", text, "--raw", "--tokens", "7", "-o", out)
    service.equal((done.returncode, done.stdout, done.stderr), (0, "", ""), "trace -o")
    with open(out, encoding="utf-8") as f:
        again = parse(f.read())[1]

    def names(rows):
        return [(r["phase"], r["step"], r["layer"], r["slot"], r["expert"], r["weight"])
                for r in rows]
    service.equal(names(again), names(rows), "the same text, the same choices")
    done = daemon.moectl("trace", "-", text="a")
    service.equal(done.returncode, 0, f"trace of standard input: {done.stderr}")
    rows = parse(done.stdout)[1]
    service.expect(0 < sum(r["phase"] for r in rows) <= 128 * K * LAYERS, "to the end")
    done = daemon.moectl("trace", "--raw", "-n", "1", "-o", "/nowhere/x", "text")
    service.expect(done.returncode == 1 and "/nowhere/x" in done.stderr, f"no file: {done.stderr}")


def test_all(daemon):
    trace = daemon.spawn("trace", "--all", "-n", "20")
    service.wait_for(lambda: daemon.status()["tracing"] == {"all": 1, "uids": [os.getuid()]},
                     "the status does not tell of the trace")
    texts = [daemon.spawn("bench", "--tokens", "15", "--prompt-tokens", "9", "--repeat", "2")
             for _ in range(3)]
    out, err = trace.communicate(timeout=service.PATIENCE)
    for text in texts:
        service.equal(text.wait(service.PATIENCE), 0, "bench")
    service.equal((trace.returncode, err), (0, ""), "trace --all")
    rows = parse(out)[1]
    prompts = len({(r["turn"], r["step"]) for r in rows if not r["phase"]})
    check_rows(rows, "trace --all", (prompts, 20))
    service.expect(len({r["turn"] for r in rows}) >= 2, "one request only is traced")
    done = daemon.moectl("trace", "--all", "--seconds", "1")
    service.equal((done.returncode, done.stderr), (0, ""), "trace --seconds")
    service.equal(parse(done.stdout)[1], [], "rows of nothing")
    trace = daemon.spawn("trace", "--all")
    service.wait_for(lambda: daemon.status()["tracing"]["all"] == 1, "no second trace")
    trace.send_signal(signal.SIGINT)
    service.equal(trace.wait(service.PATIENCE), 0, "Ctrl-C")
    trace.communicate()
    service.wait_for(lambda: daemon.status()["tracing"]["all"] == 0, "the trace does not end")
    log = daemon.log()
    service.expect(log.count("traces what the routers choose") == 3 and "king" not in log,
                   "the log does not tell who traced")


def check_map(m, what):
    service.equal((m["experts"], m["moe_layers"], m["top_k"]), (EXPERTS, LAYERS, K), what)
    service.equal(m["uses"], m["tokens"] * LAYERS * K, f"{what}: uses")
    service.equal(sum(uses(m).values()), m["uses"], f"{what}: sum of uses")
    service.equal(m["used"], sum(y["used"] for y in m["layers"]), f"{what}: used")
    for y in m["layers"]:
        service.equal(sum(y["uses"]), m["tokens"] * K, f"{what}: layer {y['layer']}")
        service.expect(abs(sum(y["weights"]) - m["tokens"]) < 1e-3 * (m["tokens"] + 1),
                       f"{what}: weights of layer {y['layer']}: {sum(y['weights'])}")
        for name, values in (("load", y["uses"]), ("importance", y["weights"])):
            mean = sum(values) / EXPERTS
            cv2 = sum((v - mean) ** 2 for v in values) / EXPERTS / mean ** 2
            service.expect(abs(cv2 - y[f"{name}_cv2"]) < 1e-6, f"{what}: {name} {cv2} {y}")


def check_svg(text, maps):
    root = xml.etree.ElementTree.fromstring(text)
    service.expect(root.tag.endswith("}svg"), root.tag)
    paths = [e.get("d") for e in root.iter() if e.tag.endswith("}path") and e.get("fill") !=
             "#ffffff"]
    cells = sum(d.count("M") for d in paths)
    service.equal(cells, maps * LAYERS * EXPERTS, "cells of the picture")
    service.expect("href" not in text and "url(" not in text, "it needs something else")


def test_experts(daemon, directory):
    m = daemon.json("experts", "--json")
    check_map(m, "experts")
    status = daemon.status()
    service.equal(m["tokens"], status["engine"]["rows_live"] + status["engine"]["rows_bulk"],
                  "tokens")
    service.equal(sum(sum(y["resident"]) for y in m["layers"]),
                  status["cache"]["experts_resident"], "experts in memory")
    text = os.path.join(directory, "text")
    one = daemon.json("experts", "--json", "--text-file", text)
    check_map(one, "a text")
    service.expect("resident" not in one["layers"][0], "what is in memory is not of the text")
    tokens = len(daemon.programs.tokens(daemon.options[-1], "the king in the thing"))
    service.expect(one["tokens"] in (tokens, tokens + 1), f"{one['tokens']} of {tokens} tokens")
    two = daemon.json("experts", "--json", "--text", "the king in the thing", "--text",
                      "sing a song of the other king")
    service.equal([y["uses"] for y in two["texts"][0]["layers"]],
                  [y["uses"] for y in one["layers"]], "the same text")
    check_map(two["texts"][1], "the second text")
    a, b = (set(+uses(t)) for t in two["texts"])
    service.expect(abs(two["overlap"]["jaccard"] - len(a & b) / len(a | b)) < 1e-9, "jaccard")
    service.expect(0 <= two["overlap"]["weighted"] <= 1, "weighted")
    same = daemon.json("experts", "--json", "--text", "the king", "--text", "the king")
    service.equal((same["overlap"]["jaccard"], same["overlap"]["weighted"]), (1.0, 1.0), "itself")
    check_svg(daemon.moectl("experts", "--svg").stdout, 1)
    out = os.path.join(directory, "map.svg")
    service.equal(daemon.moectl("experts", "--svg", "--text", "<&>\"", "--text-file", text,
                                "-o", out).returncode, 0, "experts -o")
    with open(out, encoding="utf-8") as f:
        check_svg(f.read(), 2)
    for width in ("24", "80", "400"):
        done = subprocess.run([daemon.programs.moectl, "--socket", daemon.socket, "experts"],
                              env={"COLUMNS": width}, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        service.equal(done.returncode, 0, f"experts: {done.stderr}")
        service.equal(sum("|" in line for line in lines), LAYERS, "lines of layers")
        service.expect("\033" not in done.stdout, "colours in what is no terminal")


def screen(daemon, *arguments, keys=b"q", seconds=0.7):
    """What a terminal sees, the exit status, and whether the terminal is as before."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(daemon.programs.moectl, ["moectl", "--socket", daemon.socket, *arguments])
    seen, end = b"", time.monotonic() + service.PATIENCE

    def take(until):
        nonlocal seen
        while time.monotonic() < until:
            if select.select([fd], [], [], 0.05)[0]:
                try:
                    data = os.read(fd, 65536)
                except OSError:
                    return
                if not data:
                    return
                seen += data

    while b"uptime" not in seen and b" up " not in seen and time.monotonic() < end:
        take(time.monotonic() + 0.1)
    take(time.monotonic() + seconds)
    os.write(fd, keys)
    take(end)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return seen.decode(errors="replace"), status


def test_top(daemon):
    bench = daemon.spawn("bench", "--prompt-tokens", "4", "--tokens", "60", "--repeat", "1000000")

    def rate():
        return daemon.json("top", "--json", "--count", "1", "--interval", "0.3")["decode_tokens_per_s"]
    try:
        # What is slow today takes its time.
        service.wait_for(lambda: rate() > 0, "nothing is generated")
        done = daemon.moectl("top", "--json", "--count", "2", "--interval", "0.3")
        service.equal((done.returncode, done.stderr), (0, ""), "top")
        looks = [json.loads(line) for line in done.stdout.splitlines()]
        service.equal(len(looks), 2, "looks")
        for look in looks:
            service.equal(look["state"], "ready", "state")
            service.expect(look["decode_tokens_per_s"] >= 0, "a rate below nothing")
            service.expect(0 <= (look["hit_rate"] or 0) <= 1, f"hit rate {look['hit_rate']}")
            service.expect(abs(sum(look["time"].values()) - 1) < 1e-6, f"time {look['time']}")
            service.expect(any(s["state"] in ("prefill", "decode", "waiting")
                               for s in look["sessions"]), f"sessions {look['sessions']}")
        lines = daemon.moectl("top", "--count", "3", "--interval", "0.1").stdout.splitlines()
        service.equal(len(lines), 4, f"lines {lines}")
        for keys in (b"q", b"\3"):
            seen, status = screen(daemon, "top", "--interval", "0.2", keys=keys)
            service.equal(status, 0, f"top ended with {keys}")
            service.expect("tokens  decode" in seen and "attention [" in seen, f"{seen[-800:]!r}")
            service.expect(seen.rstrip().endswith("\033[?1049l"), "the terminal is not restored")
    finally:
        bench.kill()
        bench.communicate()


def test_gone(programs, directory, model):
    """It says so when the daemon has gone, and when it is back."""
    with service.Service(programs, directory, "--model", model) as daemon:
        top = daemon.spawn("top", "--json", "--interval", "0.1")
        states = []

        def wait(state):
            while not states or states[-1] != state:
                states.append(json.loads(top.stdout.readline())["state"])
        wait("ready")
        service.equal(daemon.stop(), 0, "exit status")
        wait("gone")
        daemon.start(ready=False)
        wait("ready")
        top.send_signal(signal.SIGINT)
        top.communicate(timeout=service.PATIENCE)
        service.equal(top.returncode, 0, "Ctrl-C")
        daemon.stop()


def test_others(daemon):
    """Another user sees its own text's experts, and nothing of others."""
    if os.getuid() != 0:
        print("not root: no other user can be played")
        return

    def other(*arguments):
        return subprocess.run([daemon.programs.moectl, "--socket", daemon.socket, *arguments],
                              user=65534, group=65534, extra_groups=[], capture_output=True,
                              text=True, timeout=service.PATIENCE)
    for arguments in (["experts"], ["experts", "--json"], ["experts", "--svg"],
                      ["trace", "--all", "--seconds", "1"]):
        done = other(*arguments)
        service.expect(done.returncode == 1 and "moed-admin" in done.stderr,
                       f"{arguments}: {done.returncode} {done.stderr}")
        service.equal(done.stdout, "", f"{arguments}: output")
    done = other("experts", "--json", "--text", "mine")
    service.equal(done.returncode, 0, f"one's own text: {done.stderr}")
    check_map(json.loads(done.stdout), "one's own text")
    service.equal(other("trace", "-n", "2", "mine").returncode, 0, "one's own trace")
    look = json.loads(other("top", "--json", "--count", "1", "--interval", "0.1").stdout)
    service.expect(all(s["uid"] == 65534 for s in look["sessions"]), f"{look['sessions']}")


def test_dense(programs, directory, dense):
    with service.Service(programs, directory, "--model", dense) as daemon:
        for arguments in (["experts"], ["trace", "x"], ["trace", "--all"]):
            done = daemon.moectl(*arguments)
            service.expect(done.returncode == 1 and "no experts" in done.stderr,
                           f"{arguments}: {done.stderr}")
        daemon.stop()


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        os.chmod(directory, 0o755)
        dense = programs.dense(directory)
        moe = programs.upcycled(dense)
        least = str(programs.floor(moe))
        with service.Service(programs, directory, "--memory", least, "--model", moe,
                             config="socket-mode: 0666\n") as daemon:
            test_trace(daemon, directory)
            test_all(daemon)
            test_experts(daemon, directory)
            test_top(daemon)
            test_others(daemon)
            service.equal(daemon.stop(), 0, "exit status")
        test_gone(programs, directory, moe)
        test_dense(programs, directory, dense)
    service.verdict("trace, experts, top")


main()
