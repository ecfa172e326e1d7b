#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""moectl against the fake daemon, line by line of its manual: moectl.py MOECTL FAKE-MOED"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

moectl, fake = sys.argv[1:3]
tmp = tempfile.TemporaryDirectory(prefix="moed-test-")
sock = os.path.join(tmp.name, "s")
os.environ.pop("POSIXLY_CORRECT", None)
os.environ["MOED_SOCKET"] = sock


def run(*args, stdin=b"", env=None, stdout=subprocess.PIPE):
    return subprocess.run([moectl, *args], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                          env=env, timeout=60)


def good(*args, stdin=b""):
    r = run(*args, stdin=stdin)
    assert r.returncode == 0 and not r.stderr, (args, r)
    return r.stdout


def bad(status, pattern, *args, stdin=b"", env=None):
    r = run(*args, stdin=stdin, env=env)
    assert r.returncode == status and r.stdout == b"", (args, r)
    assert re.search(pattern, r.stderr.decode()), (args, r)
    assert r.stderr.startswith(b"moectl: ") and r.stderr.endswith(b"\n"), r


def start(loading=0):
    d = subprocess.Popen([fake, sock, str(loading)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
    assert d.stdout.readline() == b"ready\n"
    return d


def stop(daemon):
    daemon.stdin.close()
    daemon.wait()
    daemon.stdout.close()


def test_help():
    verbs = ["status", "prompt", "score", "bench", "top", "experts", "trace", "ping", "reload", "drain"]
    text = good("--help").decode()
    for v in verbs:
        assert re.search(rf"^  {v} ", text, re.M), v
        own = good(v, "--help").decode()
        assert own.startswith("Usage: moectl ") and v in own.split("\n")[0]
    options = {"prompt": ["system", "raw", "temperature", "top-k", "top-p", "min-p", "seed",
                          "max-tokens", "stop", "json"],
               "bench": ["json", "prompt-tokens", "max-tokens", "tokens", "context", "clients",
                         "sequences", "repeat", "rounds", "seed", "breakdown"],
               "ping": ["json", "count", "busy"], "score": ["json", "ids"], "status": ["json"],
               "top": ["interval", "count", "json"],
               "experts": ["text", "text-file", "json", "svg", "output"],
               "trace": ["prompt", "file", "raw", "tokens", "all", "seconds", "output"]}
    for v, names in options.items():
        own = good(v, "--help").decode()
        assert all(f"--{n} " in own or f"--{n}\n" in own for n in names), (v, own)
    assert re.fullmatch(r"moectl \d+\.\d+\.\d+\n", good("--version").decode())
    assert good("prompt", "--version") == good("--version")


def test_usage():
    bad(2, "verb is missing")
    bad(2, "unknown verb 'porompt'", "porompt")
    bad(2, "--frobnicate", "prompt", "--frobnicate", "x")
    bad(2, "frobnicate", "--frobnicate")
    bad(2, "temperature", "status", "--temperature", "1")
    bad(2, "requires an argument", "prompt", "--seed")
    bad(2, "one argument too many", "prompt", "a", "b")
    bad(2, "one argument too many", "status", "now")
    bad(2, "exclude", "prompt", "--raw", "--system", "x", "y")
    bad(2, "needs TEXT", "score")
    bad(2, "prompt is empty", "prompt", "")
    for option, values in {
        "temperature": ["-1", "nan", "inf", "1e999", "", "12abc", "0x1p3", "101", " 1"],
        "top-p": ["2", "0", "-0.1", "NaN", "1,0"], "min-p": ["1.5", "-1", "nan"],
        "top-k": ["-1", "1.5", "x", "4294967296", "99999999999999999999"],
        "seed": ["-1", "18446744073709551616", "0x10"], "max-tokens": ["-1", "abc", "1e3"],
        "stop": ["", "x" * 257],
    }.items():
        for v in values:
            bad(2, f"--{option}", "prompt", f"--{option}", v, "text")
    for option in ["prompt-tokens", "max-tokens", "tokens", "clients", "sequences", "repeat",
                   "rounds"]:
        for v in ["0", "-1", "1.5", "a", "99999999999"]:
            bad(2, f"--{option}", "bench", f"--{option}", v)
    for option in ["context", "seed"]:
        for v in ["-1", "1.5", "a", "99999999999999999999"]:
            bad(2, f"--{option}", "bench", f"--{option}", v)
    for v in ["0", "-5", "ten"]:
        bad(2, "--count", "ping", "--count", v)
    for v in ["0", "0.05", "x", "nan", "4000"]:
        bad(2, "--interval", "top", "--interval", v)
    for v in ["0", "-1", "x"]:
        bad(2, "--tokens", "trace", "-n", v, "text")
        bad(2, "--seconds", "trace", "--all", "--seconds", v)
    bad(2, "takes no prompt", "trace", "--all", "text")
    bad(2, "more than one prompt", "trace", "--prompt", "a", "b")
    bad(2, "more than two texts", "experts", *["--text=x"] * 3)
    bad(2, "exclude", "experts", "--json", "--svg")
    bad(2, "is for --all", "trace", "--seconds", "1", "text")
    bad(2, "invalid option", "top", "-n", "1")
    bad(2, "16 times", "prompt", *["--stop=x"] * 17, "y")


def test_no_daemon():
    for verb in (["status"], ["prompt", "x"], ["score", "x"], ["bench"], ["ping"], ["drain"],
                 ["top"], ["experts"], ["trace", "x"]):
        bad(1, re.escape(sock) + ".*No such file.*is it running", *verb)
    bad(1, "/nowhere/s.*running.*--socket", "--socket", "/nowhere/s", "status")
    bad(1, "1 to 107 bytes", "--socket", "/" + "x" * 200, "status")


def test_prompt():
    assert good("prompt", "Hello, h\u00e9") == "Hello, h\u00e9\n".encode()
    assert good("prompt", "ends itself\n") == b"ends itself\n"
    assert good("prompt", "-", stdin=b"from stdin") == b"from stdin\n"
    assert good("prompt", stdin=b"no TEXT, no terminal") == b"no TEXT, no terminal\n"
    assert good("prompt", "--max-tokens", "3", "abcdef") == b"abc\n"
    assert good("prompt", "--", "--raw") == b"--raw\n"
    assert good("prompt", "text", "--raw") == b"text\n"
    long = b"x" * 300000
    assert good("prompt", "-", stdin=long) == long + b"\n"
    assert good("--socket", sock, "prompt", "x") == b"x\n"
    assert good("prompt", "--socket", sock, "x") == b"x\n"
    out = good("prompt", "--system", "Be brief.", "--temperature", "0.5", "--top-k", "7",
               "--top-p", "0.25", "--min-p", "0.125", "--seed", "18446744073709551615",
               "--max-tokens", "4000", "--stop", "A", "--stop", "\n", "@show")
    assert out == (b"mode=2 f=0 max=4000 k=7 t=0.5 p=0.25 m=0.125 seed=18446744073709551615;"
                   b"stop=A;stop=\n;turn=system;text=Be brief.;turn=user;text=@show;\n"), out
    assert good("prompt", "--raw", "@show").startswith(b"mode=1 f=0 max=0 k=0 t=0 p=1 m=0 seed=0;")
    assert good("prompt", "--raw", "") == b""
    # A file or a pipe gets what the model said, byte for byte.
    assert good("prompt", "@esc") == b"a\x1b[31mb\tc\n\x7f\n"
    # Not UTF-8: passed on as it is.
    assert good("prompt", os.fsdecode(b"a\xff\xfeb")) == b"a\xff\xfeb\n"
    bad(1, "could not be read", "prompt", "@error")
    bad(1, "moed has gone", "prompt", "@drop")
    bad(1, "moed has gone", "prompt", "@break")
    bad(1, "prompt is empty", "prompt", "-")


def test_prompt_json():
    out = good("prompt", "--json", "h\u00e9")
    assert out.count(b"\n") == 1
    o = json.loads(out)
    assert o["text"] == "h\u00e9" and o["ids"] == [104, 195] and o["finish"] == "stop"
    assert o["prompt_tokens"] == 3
    assert o["timing"] == {"queue_s": 1.0, "prefill_s": 2.0, "decode_s": 3.0, "io_wait_s": 0.5}
    assert o["cache"] == {"hits": 10, "misses": 5, "bytes_read": 4096}
    o = json.loads(good("prompt", "--json", "--max-tokens", "1", "abc"))
    assert o["finish"] == "length" and o["text"] == "a"
    o = json.loads(good("prompt", "--json", os.fsdecode(b"a\xffb\xe2\x82")))
    assert o["text"] == "a\ufffdb\ufffd\ufffd", o
    o = json.loads(good("prompt", "--json", "-", stdin=b"nul\0inside"))
    assert o["text"] == "nul\0inside"


def test_score():
    o = json.loads(good("score", "--json", "abc"))
    assert [t["id"] for t in o["tokens"]] == [97, 98, 99]
    assert [t["logprob"] for t in o["tokens"]] == [None, -0.5, -0.5]
    assert o["total"] == -1.0 and abs(o["perplexity"] - 2.718281828 ** 0.5) < 1e-6
    o = json.loads(good("score", "--json", "--ids", "5, 6 [7]"))
    assert "".join(t["text"] for t in o["tokens"]) == "5 6 7 "
    text = good("score", "-", stdin=b"a\nb").decode()
    assert len(text.split("\n")) == 5 and "\\n" in text and "total -1.000000" in text, text
    bad(1, "no token id", "score", "--ids", "5 x")
    bad(1, "no token ids", "score", "--ids", " ")
    bad(1, "could not be read", "score", "@error")


def test_status():
    o = json.loads(good("status", "--json"))
    assert o["version"] == "fake" and o["name"] == "a\x1bb"
    text = good("status")
    assert b"\x1b" not in text and b"4.00 KiB (4096)" in text, text
    assert re.search(rb"^time +decode [\d.]+ us a token, prefill 0 us a token, idle \d+ s$", text,
                     re.M), text
    assert re.search(rb"^kernels +t; Q9 packed: decode one 8x1, prefill \? \?$", text, re.M), text


def test_bench():
    keys = ["prefill_tokens_per_s", "decode_tokens_per_s", "aggregate_tokens_per_s", "ttft_ms",
            "hit_rate", "bytes_read", "bytes_useful", "io_wait_share"]
    o = json.loads(good("bench", "--json", "--clients", "3", "--repeat", "4", "--prompt-tokens",
                        "100", "--max-tokens", "5"))
    assert all(k in o for k in keys), o
    assert set(o["ttft_ms"]) == {"p50", "p99"} and 0 < o["ttft_ms"]["p50"] <= o["ttft_ms"]["p99"]
    assert o["hit_rate"] == 10 / 15 or abs(o["hit_rate"] - 2 / 3) < 1e-6
    assert o["bytes_read"] == 12 * 4096 and o["bytes_useful"] == 12 * 4000
    assert abs(o["io_wait_share"] - 0.1) < 1e-9
    assert o["generated"] == 60 and abs(o["decode_tokens_per_s"] - 48 / 36) < 1e-6, o
    assert b"tokens/s" in good("bench", "--max-tokens", "2")


def test_bench_rounds():
    o = json.loads(good("bench", "--json", "--clients", "2", "--sequences", "3", "--repeat", "2",
                        "--rounds", "4", "--prompt-tokens", "50", "--tokens", "5"))
    requests = 2 * 3 * 2 * 4
    assert o["generated"] == requests * 5 and o["bytes_read"] == requests * 4096, o
    assert [o[k] for k in ("clients", "sequences", "repeat", "rounds", "context")] == \
        [2, 3, 2, 4, 0]
    assert abs(o["decode_tokens_per_s"] - 4 / 3) < 1e-6, o
    assert abs(o["ttft_s"] * 1000 - o["ttft_ms"]["p50"]) < 1e-6, o
    for name, s in o["spread"].items():
        if s["min"] is None:
            assert name == "decode_all_tokens_per_s" and o[name] is None, o
        else:
            assert 0 < s["min"] <= o[name] <= s["max"], (name, o)
    assert set(o["spread"]) == {f"{k}_tokens_per_s" for k in (
        "prefill", "decode", "aggregate", "prefill_all", "decode_all")} | {"ttft_s"}
    # One sequence is all sequences.
    o = json.loads(good("bench", "--json", "--max-tokens", "9"))
    assert o["decode_all_tokens_per_s"] > 0, o
    # What is computed before the clock starts counts nowhere.
    deep = json.loads(good("bench", "--json", "--context", "30", "--prompt-tokens", "10",
                           "--repeat", "3", "--rounds", "2", "--sequences", "2"))
    assert deep["context"] == 30 and deep["bytes_read"] == 12 * 4096, deep
    text = good("bench", "--rounds", "3", "--sequences", "2").decode()
    assert re.search(r"^decode .*tokens/s of one request \([\d.]+ to [\d.]+\)$", text, re.M), text
    assert "prefill, all" in text
    assert "prefill, all" not in good("bench").decode()


def test_bench_breakdown():
    """Of an answer the fake daemon says: 100 ns a token of decode, 60 of them in MoE layers."""
    o = json.loads(good("bench", "--json", "--breakdown", "--context", "9", "--rounds", "3"))
    b = o["breakdown"]
    assert b["decode"]["tokens"] == 3 * 10 and b["prefill"]["tokens"] == 0, b
    assert abs(b["decode"]["us_per_token"] - 0.1) < 1e-9 and b["prefill"]["us_per_token"] == 0, b
    assert b["decode"]["time"] == {
        "head": {"us_per_token": 0.04, "share": 0.4},
        "moe": {"down": {"us_per_token": 0.06, "share": 0.6}}}, b
    assert b["prefill"]["time"]["moe"]["down"] == {"us_per_token": 0, "share": 0}, b
    assert abs(b["idle_s"] - 3) < 1e-9, b
    assert "breakdown" not in json.loads(good("bench", "--json"))
    text = good("bench", "--breakdown").decode()
    assert re.search(r"^moe +0\.06 +60\.0 % +0\.00 +0\.0 %$", text, re.M), text
    assert re.search(r"^  down +0\.06 +60\.0 % +0\.00 +0\.0 %$", text, re.M), text
    assert re.search(r"^total +0\.10 +100\.0 % +0\.00 +0\.0 %$", text, re.M), text


def test_bench_seed():
    """The same seed asks the same, another (or none) something else."""
    def lengths(*seeds):
        # The fake daemon counts digits as tokens.
        return {json.loads(good("bench", "--json", "--prompt-tokens", "200", *seed))
                ["prompt_tokens"] for seed in seeds}

    assert len(lengths(*[["--seed", "7"]] * 3)) == 1
    assert len(lengths(*[["--seed", str(i)] for i in range(1, 9)])) > 1
    assert len(lengths(*[[]] * 8)) > 1


def test_ping():
    for busy in ([], ["--busy"]):
        o = json.loads(good("ping", "--json", "--count", "20", *busy))
        assert 0 < o["p50_us"] <= o["p99_us"], o
    assert b"20 round trips" in good("ping", "--count", "20")


def test_admin():
    assert good("reload") == b""
    bad(1, "only administrators", "drain")


def test_output():
    with open("/dev/full", "wb") as full:
        for args in (["prompt", "x"], ["prompt", "--json", "x"], ["score", "x"], ["status"],
                     ["bench"], ["ping", "--count", "2"]):
            r = run(*args, stdout=full)
            assert r.returncode == 1 and b"No space left" in r.stderr, (args, r)
    # A reader that leaves: ended by SIGPIPE, as others are; where that is ignored, it is said.
    for ignore in (False, True):
        p = subprocess.Popen([moectl, "prompt", "-"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             restore_signals=not ignore)
        p.stdout.close()
        _, err = p.communicate(b"y" * 100000, timeout=60)
        assert p.returncode == (1 if ignore else -signal.SIGPIPE), p.returncode
        assert (b"Broken pipe" in err) == ignore, err


def test_loading():
    daemon = start(loading=3)
    try:
        r = run("status", "--json")
        assert r.returncode == 0 and json.loads(r.stdout)
        assert r.stderr.count(b"loads its model") == 1 and b"\x1b" not in r.stderr, r
    finally:
        stop(daemon)


def wait_for(fd, pattern, seconds=20):
    got, end = b"", time.monotonic() + seconds
    while not re.search(pattern, got, re.S):
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        assert ready, (pattern, got)
        try:
            piece = os.read(fd, 4096)
        except OSError:
            piece = b""
        assert piece, (pattern, got)
        got += piece
    return got


def test_cancel():
    p = subprocess.Popen([moectl, "prompt", "--json", "@hang"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130, (p.returncode, err)
    assert json.loads(out)["finish"] == "cancelled"
    # While standard input is read nothing is caught.
    p = subprocess.Popen([moectl, "prompt", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=60) == -signal.SIGINT
    p.stdin.close()
    p.stdout.close()


class Terminal:
    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(moectl, [moectl, *args])

    def type(self, data):
        os.write(self.fd, data)

    def wait(self, pattern):
        return wait_for(self.fd, pattern)

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_terminal():
    t = Terminal("prompt", "@esc")
    assert b"a?[31mb\tc\r\n?" in t.wait(rb"\?\r\n")
    assert t.end() == 0

    t = Terminal("prompt", "--system", "sys")
    t.wait(rb"leaves\.\r\n> $")
    t.type(b"first\n")
    t.wait(rb"first\r\nfirst\r\n> $")
    t.type(b"\n\n")
    t.wait(rb"> .*> $")
    t.type(b"@error\n")
    t.wait(rb"could not be read\r\n> $")
    t.type(b"@show\n")  # what failed is not part of it
    out = t.wait(rb"@show;\r\n> $")
    assert (b"turn=system;text=sys;turn=user;text=first;turn=assistant;text=first;turn=user;"
            b"text=@show;") in out, out
    t.type(b"@hang\n")
    time.sleep(0.3)
    t.type(b"\x03")
    t.wait(rb"\(cancelled\)\r\n> $")
    t.type(b"after\n")
    t.wait(rb"after\r\nafter\r\n> $")
    t.type(b"\x03")
    t.wait(rb"once more.*> $")
    t.type(b"again\n")  # a line in between
    t.wait(rb"again\r\nagain\r\n> $")
    t.type(b"\x03")
    t.wait(rb"once more.*> $")
    t.type(b"\x03")
    assert t.end() == 130

    t = Terminal("prompt")
    t.wait(rb"> $")
    t.type(b"@hang\n")
    time.sleep(0.3)
    t.type(b"\x03")
    t.wait(rb"> $")
    t.type(b"\x03")  # twice
    assert t.end() == 130

    t = Terminal("prompt")
    t.wait(rb"> $")
    t.type(b"\x04")
    assert t.end() == 0


def test_restart(daemon):
    """A conversation goes on with the daemon that comes after."""
    t = Terminal("prompt")
    t.wait(rb"> $")
    t.type(b"one\n")
    t.wait(rb"one\r\none\r\n> $")
    stop(daemon)
    daemon = start()
    t.type(b"two\n")
    t.wait(rb"two\r\ntwo\r\n> $")
    t.type(b"\x04")
    assert t.end() == 0
    return daemon


def test_top():
    """Against a daemon whose status lacks nearly all: from loading to its end and after."""
    daemon = start(loading=3)
    t = Terminal("top", "--interval", "0.1")
    t.wait(rb"\x1b\[\?1049h.*loading \d+ %.*tokens  decode 0.0/s")
    fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 9, 44, 0, 0))
    small = t.wait(rb"\x1b\[9;1H\x1b\[7m q ends").split(b"\x1b[H")[-1]
    assert all(len(line) <= 44 + len("\x1b[K\r") for line in small.split(b"\n")[:-1]), small
    stop(daemon)
    t.wait(rb"gone: waiting")
    daemon = start()
    t.wait(rb"tokens  decode")
    t.type(b"xq")
    assert t.end() == 0
    lines = good("top", "--count", "2", "--interval", "0.1").decode().splitlines()
    assert len(lines) == 3 and lines[0].startswith("state"), lines
    top = subprocess.Popen([moectl, "top", "--json", "--interval", "0.1"], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    look = json.loads(top.stdout.readline())
    assert look["hit_rate"] is None and look["sessions"] == [], look
    stop(daemon)
    while look["state"] != "gone":
        look = json.loads(top.stdout.readline())
    top.send_signal(signal.SIGTERM)
    assert top.wait(60) == 0 and top.stderr.read() == b""
    top.stdout.close()
    top.stderr.close()
    daemon = start()
    bad(1, "no experts", "experts")
    bad(1, "no experts", "trace", "x")
    stop(daemon)


test_help()
test_usage()
test_no_daemon()
test_loading()
test_top()
daemon = start()
try:
    for test in (test_prompt, test_prompt_json, test_score, test_status, test_bench,
                 test_bench_rounds, test_bench_breakdown, test_bench_seed, test_ping, test_admin, test_output,
                 test_cancel, test_terminal):
        test()
    daemon = test_restart(daemon)
finally:
    stop(daemon)
print("ok")
