# SPDX-License-Identifier: MIT
"""The oracle through the daemon: the upcycled model, streamed under the least memory that works,
says through the rings what the dense model says when all of it is resident, and what the engine
says without a daemon.  Usage: answers.py MOED MOECTL MOE-MODEL"""
import sys

import service
from tinygguf import EOS

TEXTS = ["the king", "a", "in the thing that the other thing is in, the thin king can sing " * 6,
         "Ünïcode: \U0001f980 \t\n end", "the the the the"]
N = 16


def until_eos(ids):
    return ids[:ids.index(EOS)] if EOS in ids else ids


def chatml(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def answers(daemon):
    """Everything that is compared: raw, by template, several at once, and scores."""
    raw = [daemon.ask(text, "--raw", tokens=N) for text in TEXTS]
    chat = [daemon.ask(text, tokens=N) for text in TEXTS]
    children = [daemon.spawn("prompt", "--raw", "--json", "--temperature", "0", "--max-tokens",
                             str(N), "--", text) for text in TEXTS]
    batch = [service.json.loads(child.communicate(timeout=service.PATIENCE)[0])
             for child in children]
    scores = [daemon.json("score", "--json", "--", text)["tokens"] for text in TEXTS]
    return raw, chat, batch, scores


def compare(have, want, how):
    for name, mine, theirs in zip(("raw", "chat", "batch"), have, want):
        for text, a, b in zip(TEXTS, mine, theirs):
            service.equal(a["ids"], b["ids"], f"{how}, {name}, {text[:20]!r}")
            service.equal(a["text"], b["text"], f"{how}, {name}, {text[:20]!r}: text")
            service.equal(a["prompt_tokens"], b["prompt_tokens"], f"{how}, {name}: tokens")
    service.equal(have[3], want[3], f"{how}: scores")


def against_engine(programs, dense, resident):
    """The daemon adds nothing to what the engine computes, and takes nothing away."""
    raw, chat, batch, _ = resident
    for name, answer, texts in (("raw", raw, TEXTS), ("batch", batch, TEXTS),
                                ("chat", chat, [chatml(text) for text in TEXTS])):
        prompts = [programs.tokens(dense, text, special=name == "chat") for text in texts]
        for ids, wanted, one in zip(prompts, programs.greedy(dense, prompts, N), answer):
            service.equal(one["ids"][:len(until_eos(wanted))], until_eos(wanted),
                          f"{name}: the engine without a daemon")
            service.equal(one["prompt_tokens"], len(ids), f"{name}: prompt tokens")
            service.equal(one["finish"], "stop" if EOS in wanted else "length", f"{name}: finish")
    service.expect(any(len(set(one["ids"])) > 2 for one in raw), "the model says one thing only")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory)
        moe = programs.upcycled(dense)
        with service.Service(programs, directory, "--model", dense) as daemon:
            resident = answers(daemon)
            service.equal(daemon.stop(), 0, "exit status")
        against_engine(programs, dense, resident)

        least = str(programs.floor(moe))
        ways = {
            "ample": (moe, [], ""),
            "least memory": (moe, ["--memory", least], ""),
            "least memory, pread, one thread": (moe, ["--memory", least, "--threads", "1"],
                                                "io: pread\n"),
            "least memory, small chunks": (moe, ["--memory", least], "chunk: 3\nsessions: 2\n"),
            "online": (dense, [], "upcycle:\n  experts: 8\n  top-k: 2\n"),
        }
        for how, (path, options, config) in ways.items():
            with service.Service(programs, directory, "--model", path, *options,
                                 config=config) as daemon:
                have = answers(daemon)
                compare(have, resident, how)
                status = daemon.status()
                service.expect(status["io"]["bytes_read"] > 0, f"{how}: nothing was read")
                if how.startswith("least"):
                    service.expect(status["cache"]["misses"] > status["cache"]["slots"],
                                   f"{how}: nothing was evicted")
                    service.expect(any(one["cache"]["misses"] > 0 and one["cache"]["bytes_read"] > 0
                                       for one in have[1]), f"{how}: the cache held everything")
                method = "pread" if "pread" in how else "uring"
                if method not in status["io"]["method"]:
                    print(f"{how}: read by {status['io']['method']}")
                    service.expect(method == "uring", f"{how}: {status['io']['method']}")
                service.equal(daemon.stop(), 0, f"{how}: exit status")
    service.verdict(f"{len(ways) + 1} daemons")


main()
