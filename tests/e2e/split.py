# SPDX-License-Identifier: MIT
"""A model in several files, as gguf-split makes them: the daemon says what it says with the model in
one file, streamed too, and reads parts that lie on different devices in parallel; parts that are
missing, mixed up or cut off are refused, and what is said names them.
Usage: split.py MOED MOECTL MOE-MODEL"""
import os
import shutil
import subprocess
import sys
import tempfile

import service
import splitgguf

TEXT = "the king in the house"
STEPS = 12
PARTS = 3


def group(name):
    """Layers 0 and 1 in the first, layer 3 in the last; and the parts of layer 2's experts apart."""
    if name.startswith(("blk.2.ffn_gate", "blk.2.ffn_up")):
        return 0
    return 2 if name.startswith(("blk.3.", "blk.2.ffn_down")) else 1 if name.startswith("blk.2") else 0


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def refused(programs, path, *words):
    done = subprocess.run([programs.moe_model, "inspect", path], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    service.equal(done.returncode, 1, f"{path}: exit status")
    for word in words:
        service.expect(word in done.stderr, f"{path}: '{word}' is not in {done.stderr}")


def check_refusals(programs, directory, parts, other):
    def place(name, files):
        folder = os.path.join(directory, name)
        os.mkdir(folder)
        for number, data in files.items():
            put(os.path.join(folder, splitgguf.name("m", number, PARTS)), data)
        return os.path.join(folder, splitgguf.name("m", 0, PARTS))
    sound = dict(enumerate(parts))
    refused(programs, place("missing", {0: parts[0], 2: parts[2]}), "part 2 of 3",
            "m-00002-of-00003.gguf", "No such file")
    refused(programs, place("mixed", {**sound, 1: parts[2], 2: parts[1]}), "mixed up",
            "m-00002-of-00003.gguf")
    refused(programs, place("strange", {**sound, 1: other[1]}), "part 2 of 2", "mixed up")
    refused(programs, place("few", {**sound, 2: splitgguf.part(b"", 0, [], 2, PARTS, 0)}),
            "split.tensors.count", "not of one model")
    refused(programs, place("twice", {**sound, 2: parts[1].replace(
        splitgguf.key(b"split.no", 2, "<H", 1), splitgguf.key(b"split.no", 2, "<H", 2))}), "twice")
    refused(programs, place("cut", {**sound, 2: parts[2][:len(parts[2]) // 2]}), "truncated",
            "m-00003-of-00003.gguf")
    refused(programs, place("none", {**sound, 1: b""}), "is empty")
    path = place("named", sound)
    refused(programs, path.replace("00001-of", "00002-of"), "part 2 of 3", "first")
    renamed = os.path.join(os.path.dirname(path), "renamed.gguf")
    os.rename(path, renamed)
    refused(programs, renamed, "first of 3", "-00001-of-00003.gguf")


def on_devices(directory, parts):
    """The parts in directories of their own, the last on another device where there is one."""
    folder = os.path.join(directory, "apart")
    os.mkdir(folder)
    other = tempfile.mkdtemp(dir="/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    devices = set()
    for number, data in enumerate(parts):
        home = os.path.join(directory, f"disk{number}")
        os.mkdir(home)
        if number == PARTS - 1 and other:
            home = other
        path = os.path.join(home, "part")
        put(path, data)
        devices.add(os.stat(path).st_dev)
        os.symlink(path, os.path.join(folder, splitgguf.name("m", number, PARTS)))
    return os.path.join(folder, splitgguf.name("m", 0, PARTS)), len(devices), other


def check_same(programs, directory, path, expected, devices):
    prompt = programs.tokens(path, TEXT)
    service.equal(programs.greedy(path, [prompt], STEPS)[0], expected, "tokens without a daemon")
    limit = programs.floor(path) + (4 << 20)
    for options in ([], ["--memory", str(limit)]):
        with service.Service(programs, directory, "--model", path, *options) as daemon:
            answer = daemon.ask(TEXT, "--raw", tokens=STEPS)
            service.equal(answer["ids"], expected, f"tokens of the parts {options}")
            status = daemon.status()
            service.equal(len(status["io"]["disks"]), devices, "disks in the status")
            if options:
                service.expect(status["cache"]["misses"] > status["cache"]["slots"],
                               "nothing was evicted")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        moe = programs.upcycled(programs.dense(directory, layers=4, hidden=256, ff=1024))
        expected = programs.greedy(moe, [programs.tokens(moe, TEXT)], STEPS)[0]
        parts = splitgguf.split(moe, group)
        service.equal(len(parts), PARTS, "parts")
        path, devices, other = on_devices(directory, parts)
        try:
            check_same(programs, directory, path, expected, devices)
            told = programs.model("check", path)
            service.expect(": 0 faults" in told, f"check: {told}")
        finally:
            if other:
                shutil.rmtree(other)
        check_refusals(programs, directory, parts, splitgguf.split(moe, lambda n: n != "output.weight"))
    service.verdict("a model in parts")


main()
