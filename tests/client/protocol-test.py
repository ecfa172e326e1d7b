#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/PROTOCOL.md is true: its client against the fake daemon, and against moed on a small model.
Usage: protocol-test.py FAKE-MOED [MOED MOE-MODEL]; 77 where moed cannot run here."""

import collections
import json
import math
import os
import sys
import tempfile

from daemon import Daemon, Fake, Skip
from protocol import (ACCEPTED, CANCELLED, EXPERTS, IGNORE_END, LENGTH, LOGITS, LOGPROBS, PROGRESS,
                      ROUTES, SCORE, STOP, TOKEN, WANT_LOGITS, WANT_ROUTES, Client, Failed, Gone,
                      text_of)


def expect_error(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Failed as e:
        assert e.code == code and e.text, e
        return e.text
    raise AssertionError(f"no error {code}")


def test_fake(path):
    c = Client(path)
    assert c.welcome.version == "fake" and c.welcome.client[2] == 65536
    tokens, done = c.answer(c.submit("h\u00e9llo", max_tokens=3))
    assert text_of(tokens) == "h\u00e9l" and done.finish == LENGTH
    # More than both rings hold, with every distance from their ends.
    for n in (1, 100, 7000, 50000):
        tokens, done = c.answer(c.submit("x" * n))
        assert text_of(tokens) == "x" * n and done.finish == STOP
    ids = list(range(20000))
    tokens, _ = c.answer(c.submit(ids, max_tokens=9))
    assert text_of(tokens) == "0 1 2 3 4"
    rows = [v for k, v in c.stream(c.submit("ab", flags=WANT_LOGITS)) if k == LOGITS]
    assert [len(r) for _, r in rows] == [9001, 9001] and rows[1][1][9000] == 9000 + 1 / 1024
    number = c.submit("@hang")
    c.ping(7)
    c.cancel(number)
    assert c.answer(number)[1].finish == CANCELLED
    assert json.loads(c.status())["version"] == "fake"
    session, found, _ = c.session_open()
    assert not found and c.session_open(session)[:2] == (session, True)
    expect_error(-5, lambda: c.answer(c.submit("@error")))
    c.close()


def test_greeting(c, context):
    w = c.welcome
    assert w.major == 1 and w.minor == 1 and w.pid > 0 and w.record_max == 16384
    assert w.context >= context and w.vocabulary > 256 and w.sessions_max and w.requests_max


def test_answers(c):
    chat = [("system", "Be brief."), ("user", "Say something about the thing.")]
    number = c.submit(chat, max_tokens=24)
    kinds = list(c.stream(number))
    tokens = [v for k, v in kinds if k == TOKEN]
    done = kinds[-1][1]
    assert kinds[0][0] == ACCEPTED and any(k == PROGRESS for k, _ in kinds)
    assert done.generated == len(tokens) <= 24 and done.finish in (STOP, LENGTH)
    assert done.prompt_tokens > 10 and done.prefill_ns > 0 and done.hits + done.misses > 0
    positions = [t.position for t in tokens]
    assert positions == list(range(done.prompt_tokens, done.prompt_tokens + len(tokens)))
    # Greedy: the same again; so in a session, where the prompt is not computed again.
    session, found, held = c.session_open()
    assert not found and held == 0
    for turn in range(2):
        again, d = c.answer(c.submit(chat, session=session, max_tokens=24))
        assert [t.id for t in again] == [t.id for t in tokens]
        assert (d.reused > 0) == (turn > 0), d
    c.session_close(session)
    same, found, held = c.session_open(session)
    assert same == session and found and held > 0
    c.session_close(session, forget=True)
    expect_error(-2, c.session_close, session)
    assert not c.session_open(session)[1]
    # Sampled: by the seed.
    drawn = [[t.id for t in c.answer(c.submit(chat, max_tokens=16, temperature=1.5, seed=s))[0]]
             for s in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and (drawn[0] != drawn[2] or drawn[0] != drawn[3])
    # Interleaved, all answered as if alone.
    numbers = [c.submit(chat, max_tokens=24) for _ in range(4)]
    for number in reversed(numbers):
        assert [t.id for t in c.answer(number)[0]] == [t.id for t in tokens]


def test_logprobs(c):
    row = token = None
    for kind, value in c.stream(c.submit("the thing", flags=LOGPROBS | WANT_LOGITS, max_tokens=3)):
        if kind == LOGITS:
            row = value[1]
            assert len(row) == c.welcome.vocabulary
        elif kind == TOKEN:
            token, largest = value, max(row)
            total = largest + math.log(math.fsum(math.exp(x - largest) for x in row))
            assert row[token.id] == largest and abs(row[token.id] - total - token.logprob) < 1e-4
    assert token
    tokens, done = c.answer(c.submit("the thing there", flags=SCORE | LOGPROBS))
    assert text_of(tokens) == "the thing there" and all(t.from_prompt for t in tokens)
    assert tokens[0].logprob is None and all(t.logprob <= 0 for t in tokens[1:])
    assert done.generated == 0 and done.prompt_tokens == len(tokens)
    ids = [t.id for t in tokens]
    again, _ = c.answer(c.submit(ids, flags=SCORE | LOGPROBS))
    assert [t.logprob for t in again] == [t.logprob for t in tokens]


def test_stops(c):
    tokens, done = c.answer(c.submit("the thing", max_tokens=64, flags=IGNORE_END))
    text = text_of(tokens)
    assert done.finish == LENGTH and done.generated == 64
    plain = [ch for ch in text[3:] if ch != "\ufffd"]
    if plain:
        tokens, done = c.answer(c.submit("the thing", max_tokens=64, flags=IGNORE_END,
                                         stops=["never in it, surely", plain[0]]))
        assert done.finish == STOP and text_of(tokens) == text[:text.index(plain[0])]


def test_cancel(c):
    number = c.submit("the thing", max_tokens=0, flags=IGNORE_END)
    other = c.submit("the other thing", max_tokens=5, flags=IGNORE_END)
    for kind, value in c.stream(number):
        if kind == TOKEN and value.position >= 4:
            c.cancel(number)
            break
    assert c.done(number).finish == CANCELLED
    assert c.answer(other)[1].generated == 5


def check_routes(entries, layers, tokens, k=2):
    """All layers of each token, once."""
    seen = sorted((e.turn, e.position, e.layer) for e in entries)
    assert len(seen) == len(set(seen)) == tokens * layers
    for e in entries:
        assert len(e.choices) == k == len({x.expert for x in e.choices}) and e.bytes > 0
        weights = [x.weight for x in e.choices]
        assert weights == sorted(weights, reverse=True) and abs(sum(weights) - 1) < 1e-5


def count(entries):
    uses = collections.Counter()
    for e in entries:
        uses.update((e.layer, x.expert) for x in e.choices)
    return uses


def uses_of(experts):
    return collections.Counter({(y["layer"], x): n for y in experts["layers"]
                                for x, n in enumerate(y["uses"])})


def test_routes(c):
    before = json.loads(c.experts())
    layers = len(before["layers"])
    assert before["experts"] == 8 and before["top_k"] == 2 and layers > 0
    assert all(len(y[name]) == 8 for y in before["layers"]
               for name in ("uses", "weights", "resident"))
    other = Client(c.path)
    trace = other.trace()
    expect_error(-16, other.trace)
    assert json.loads(c.status())["tracing"] == {"all": 1, "uids": [os.getuid()]}
    number = c.submit("the thing in the other thing", max_tokens=9,
                      flags=WANT_ROUTES | IGNORE_END)
    entries = []
    for kind, value in c.stream(number):
        if kind == ROUTES:
            entries += value
    tokens = value.prompt_tokens + value.generated - 1
    assert value.generated == 9 and value.reused == 0
    check_routes(entries, layers, tokens)
    assert sum(e.decode for e in entries) == 8 * layers and not any(e.turn for e in entries)
    after = json.loads(c.experts())
    assert uses_of(after) - uses_of(before) == count(entries)
    c.answer(c.submit("another", max_tokens=3, flags=IGNORE_END))
    all_of_them, told, lost = other.traced(trace)
    assert told * layers == len(all_of_them) and lost == 0
    check_routes(all_of_them, layers, told)
    assert len({e.turn for e in all_of_them}) == 2
    assert count(all_of_them) - count(entries) and not count(entries) - count(all_of_them)
    assert json.loads(c.status())["tracing"] == {"all": 0, "uids": []}
    other.trace()  # ended by closing
    other.close()
    old = Client(c.path, minor=0)
    old.answer(old.submit("minor 0", max_tokens=1))
    old.put(EXPERTS, old.new_number())
    try:
        old.status()
    except Gone:
        return
    raise AssertionError("a record of minor 1 was taken from minor 0")


def test_errors(c):
    context, vocabulary = c.welcome.context, c.welcome.vocabulary

    def fails(code, *args, **kwargs):
        return expect_error(code, lambda: c.answer(c.submit(*args, **kwargs)))

    fails(-22, "x", temperature=-1.0)
    fails(-22, "x", temperature=math.nan)
    fails(-22, "x", top_p=0.0)
    fails(-22, "x", top_p=1.5)
    fails(-22, "x", min_p=-0.5)
    fails(-22, [vocabulary])
    fails(-22, [("robot", "x")])
    assert str(context) in fails(-7, [5] * (context + 1))
    fails(-7, "x " * 3 * context)
    fails(-2, "x", session=b"no such session!")
    fails(-22, "x", stops=["y" * 257])
    c.answer(c.submit("still here", max_tokens=1))


def test_real(moed, moe_model, folder):
    with Daemon(moed, moe_model, folder) as d:
        c = Client(d.socket)
        test_greeting(c, 256)
        for test in (test_answers, test_logprobs, test_stops, test_cancel, test_routes,
                     test_errors):
            test(c)
        status = json.loads(c.status())
        assert status["version"] == c.welcome.version, status
        for i in range(100):
            c.ping(i, busy=i % 2)
        old = c.session_open()[0]
        c.close()
        c = Client(d.socket)
        assert c.session_open(old)[1]
        c.close()


with tempfile.TemporaryDirectory(prefix="moed-test-") as tmp:
    with Fake(sys.argv[1], tmp) as fake:
        test_fake(fake.socket)
    if len(sys.argv) > 2:
        try:
            test_real(sys.argv[2], sys.argv[3], tmp)
        except Skip as e:
            print(e)
            sys.exit(77)
print("ok")
