# SPDX-License-Identifier: MIT
"""moe-model eval as a user calls it: the form of the answer, and what it refuses.
Usage: eval-cli.py MOE_MODEL DATA_FOLDER"""
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

MOE_MODEL, DATA = sys.argv[1:3]
MODEL = os.path.join(DATA, "mixtral-f32", "model.gguf")
REFERENCE = json.load(open(os.path.join(DATA, "mixtral-f32", "reference.json")))
VOCABULARY = REFERENCE["vocab"]


def run(prompts, *options, model=MODEL, text=None, stdout=subprocess.PIPE):
    """Gives prompts (or raw text) on stdin; returns what subprocess.run() does."""
    text = json.dumps({"prompts": prompts}) if text is None else text
    return subprocess.run([MOE_MODEL, "eval", model, "--prompts", "-", "--json", *options],
                          input=text if isinstance(text, bytes) else text.encode(), stdout=stdout,
                          stderr=subprocess.PIPE, check=False)


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def answers(prompts, *options, **how):
    done = run(prompts, *options, **how)
    expect(done.returncode == 0, f"{options}: {done.stderr.decode()}")
    return json.loads(done.stdout)


def refused(status, words, prompts, *options, **how):
    done = run(prompts, *options, **how)
    message = done.stderr.decode(errors="replace")
    expect(done.returncode == status, f"{words}: status {done.returncode}, not {status}: {message}")
    expect(re.search(words, message), f"not a word of {words}: {message}")
    return message


def form():
    prompts = [p["ids"] for p in REFERENCE["prompts"]]
    got = answers(prompts, "--greedy", "8")
    expect(len(got) == len(prompts), "one answer a prompt")
    layers, k = REFERENCE["sizes"]["L"], REFERENCE["sizes"]["K"]
    for answer, prompt, reference in zip(got, prompts, REFERENCE["prompts"]):
        expect(list(answer) == ["prompt_ids", "logits", "experts", "greedy"], list(answer))
        expect(answer["prompt_ids"] == prompt, "prompt_ids")
        expect(len(answer["logits"]) == len(prompt), "a row a position")
        expect(all(len(row) == VOCABULARY for row in answer["logits"]), "the width of a row")
        expect(answer["greedy"] == reference["greedy"], "greedy")
        expect(len(answer["experts"]) == layers, "a list a layer")
        for layer, chosen in zip(answer["experts"], reference["router"]):
            expect(len(layer) == len(prompt), "a choice a position")
            for position, ids in zip(layer, chosen["experts"]):
                expect(sorted(position["ids"]) == sorted(ids), f"experts {position['ids']}, {ids}")
                expect(len(position["weights"]) == k, "a weight an expert")
                expect(abs(sum(position["weights"]) - 1) < 1e-5, "weights add up")
    # Nine digits give the float back.
    text = run(prompts[:1]).stdout.decode()
    for number in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", text):
        as_float = struct.unpack("<f", struct.pack("<f", float(number)))[0]
        expect(f"{as_float:.9g}" == number, number)
    # The same by any way.
    for options in (["--batch"], ["--chunk", "3"], ["--threads", "3"], ["--io", "pread", "--batch", "--chunk", "9"]):
        expect(answers(prompts, "--greedy", "8", *options) == got, options)
    expect(answers([]) == [], "no prompts")
    expect(answers([[0], [0]], "--batch")[1] == answers([[0]])[0], "twins")


def dense():
    got = answers([[1, 2]], model=os.path.join(DATA, "llama-q8_0", "model.gguf"))
    expect(got[0]["experts"] == [[], []] and got[0]["greedy"] == [], "a dense model")


def hostile():
    for text in (b"", b"{", b"nonsense", b"\xff\xfe", b"[" * 100000, b'{"prompts":[[1]]} more', b'"prompts"', b'7',
                 b'{"prompts":[[1' + b"0" * 400 + b"]]}", b'{"prompts":[[1e999]]}'):
        refused(1, "cannot read 'stdin': .*line", None, text=text)
    for text in ('[[1]]', '{}', '{"prompts":5}', '{"prompts":{"0":[1]}}', '{"prompts":null}'):
        refused(1, r'is not \{"prompts"', None, text=text)
    for prompt in ([], 7, [1.5], [1.0], [True], [None], ["1"], [[1]], [-1], [VOCABULARY], [0, 2 ** 62], {"0": 1}):
        message = refused(1, "prompt 1 .*is not a list of ids from 0 to", [[1], prompt])
        expect(str(VOCABULARY - 1) in message, message)
    for model in ("/nonexistent", "/dev/null", os.path.join(DATA, "mixtral-f32", "reference.json")):
        refused(1, "moe-model eval: .*" + model, [[1]], model=model)
    done = subprocess.run([MOE_MODEL, "eval", MODEL, "--prompts", "/nonexistent"], capture_output=True, check=False)
    expect(done.returncode == 1 and b"/nonexistent" in done.stderr, "a file that is not there")


def usage():
    for options in (["--threads", "0"], ["--threads", "x"], ["--greedy", "-1"], ["--chunk", "0"], ["--io", "magic"],
                    ["--memory", "lots"], ["--memory", "-1"], ["--nothing"], ["another file"], ["--greedy"]):
        refused(2, "moe-model eval", [[1]], *options)
    for arguments in ([], [MODEL]):
        done = subprocess.run([MOE_MODEL, "eval", *arguments], capture_output=True, check=False)
        expect(done.returncode == 2, arguments)
    done = subprocess.run([MOE_MODEL, "eval", "--help"], capture_output=True, check=False)
    expect(done.returncode == 0 and b"--prompts" in done.stdout, "--help")


def memory():
    long = [i % VOCABULARY for i in range(300)]
    message = refused(1, r"at least \d+M \((\d+) bytes\)", [long], "--memory", "1M")
    floor = int(re.search(r"\((\d+) bytes\)", message).group(1))
    refused(1, "too small", [long], "--memory", str(floor - 1))
    expect(answers([long], "--memory", str(floor)) == answers([long]), "the floor works, and says the same")
    # A longer text needs more.
    message = refused(1, r"\((\d+) bytes\)", [long * 200], "--memory", str(floor))
    expect(int(re.search(r"\((\d+) bytes\)", message).group(1)) > floor, message)


def full():
    if not os.path.exists("/dev/full"):
        return
    with open("/dev/full", "wb") as out:
        refused(1, "cannot write", [list(range(100))], stdout=out)


def damaged():
    """A prompt that meets a weight that is no number fails; the list stays JSON."""
    content = bytearray(open(MODEL, "rb").read())
    with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
        content[-64:] = b"\xff" * 64  # the last row of the last tensor
        f.write(content)
        f.flush()
        done = run([[1, 2], [3]], model=f.name)
        got = json.loads(done.stdout)
        failed = [a for a in got if "error" in a]
        expect(len(got) == 2 and failed, "an answer each, and one that failed")
        expect(done.returncode == 1, "the status")
        for answer in failed:
            expect("finite" in answer["error"] and "greedy" not in answer, answer["error"])


form()
dense()
hostile()
usage()
memory()
full()
damaged()
print("all as expected")
