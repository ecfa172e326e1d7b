# SPDX-License-Identifier: MIT
"""Measures PyPI's xllamacpp (llama.cpp, prebuilt for AVX2 only, in this process) and prints JSON as
llama-bench does.  Needs a Python that can import it.
Usage: peer-xllamacpp.py --model FILE [--threads N] [--prompts LIST] [--contexts LIST]
                         [--tokens N]"""
import argparse
import json
import random
import sys

import gguf


def numbers(text):
    return [int(x) for x in text.split(",") if x]


def complete(server, ids, tokens):
    """What the server says of the time of a request."""
    answer = server.handle_completions({
        "prompt": ids, "n_predict": tokens, "cache_prompt": False, "ignore_eos": True,
        "temperature": 0})
    answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
    if "timings" not in answer:
        raise RuntimeError(f"xllamacpp answers {answer!r:.300}")
    return answer["timings"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=numbers, default=[], help="lengths, parted by commas")
    parser.add_argument("--contexts", type=numbers, default=[], help="held when decode begins")
    parser.add_argument("--tokens", type=int, default=32, help="of a decode (32)")
    options = parser.parse_args()
    try:
        import xllamacpp
    except ImportError as error:
        sys.exit(f"peer-xllamacpp: {error}")
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_ctx = max([*options.prompts, *(c + options.tokens for c in options.contexts)]) + 64
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.endpoint_metrics = False
    params.warmup = True
    server = xllamacpp.Server(params)
    vocabulary = gguf.Model(options.model).keys["tokenizer.ggml.tokens"]
    rng, results = random.Random(1), []

    def ids(n):
        return [rng.randrange(3, vocabulary) for _ in range(n)]

    for n in options.prompts:
        rate = complete(server, ids(n), 1)["prompt_per_second"]
        results.append({"n_prompt": n, "n_gen": 0, "n_depth": 0, "samples_ts": [rate]})
    for n in options.contexts:
        rate = complete(server, ids(max(1, n)), options.tokens)["predicted_per_second"]
        results.append({"n_prompt": 0, "n_gen": options.tokens, "n_depth": n, "samples_ts": [rate]})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
