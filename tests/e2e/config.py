# SPDX-License-Identifier: MIT
"""What is refused at start: wrong configurations with file, line, column and what is allowed, wrong
usage, wrong models, too little memory; each with its exit status.
Usage: config.py MOED MOECTL MOE-MODEL"""
import os
import subprocess
import sys

import service

# text, line:column, what the message has to name
WRONG = {
    "unknown key": ("modle: /m\n", "1:1", ["modle", "memory.limit"]),
    "unknown key in a group": ("log: info\nmemory:\n  limt: 6G\n", "3:3", ["memory.limt"]),
    "a group's key outside": ("limit: 6G\n", "1:1", ["limit"]),
    "twice": ("threads: 1\nthreads: 2\n", "2:1", ["threads", "twice"]),
    "group twice": ("memory:\n  limit: 1G\nmemory:\n  lock: try\n", "3:1", ["memory", "twice"]),
    "no number": ("threads: many\n", "1:10", ["threads", "many", "0 to 256"]),
    "negative": ("threads: -1\n", "1:10", ["threads", "0 to 256"]),
    "too large": ("threads: 257\n", "1:10", ["threads", "0 to 256"]),
    "far too large": ("threads: 99999999999999999999999\n", "1:10", ["threads"]),
    "not whole": ("threads: 1.5\n", "1:10", ["threads"]),
    "a list": ("threads:\n  - 1\n", "2:3", ["threads", "list"]),
    "a mapping": ("threads:\n  a: 1\n", "2:3", ["threads", "mapping"]),
    "no choice": ("io: fast\n", "1:5", ["io", "fast", "auto|uring|pread"]),
    "no size": ("memory:\n  limit: 6 gigabytes\n", "2:10", ["memory.limit", "512M"]),
    "nothing as a size": ("memory:\n  limit: 0\n", "2:10", ["memory.limit"]),
    "more than all": ("memory:\n  limit: 101%\n", "2:10", ["memory.limit"]),
    "relative path": ("socket: moed.sock\n", "1:9", ["socket", "absolute"]),
    "no mode": ("socket-mode: 0888\n", "1:14", ["socket-mode", "octal"]),
    "scalar for a group": ("memory: 6G\n", "1:9", ["memory", "mapping"]),
    "too deep": ("memory:\n  limit:\n    a: 1\n", "3:5", ["memory.limit"]),
    "alias": ("threads: &a 1\nchunk: *a\n", "2:8", ["chunk", "alias"]),
    "two documents": ("log: info\n---\nlog: info\n", "2:1", ["document"]),
    "no mapping": ("info\n", "1:1", ["mapping"]),
    "no YAML": ("log: \"info\n", "2:1", ["YAML"]),
    "a tab": ("memory:\n\tlimit: 1G\n", "2:1", ["YAML"]),
    "bytes": ("log: \udcff\udcfe\n", "1:", ["YAML"]),
}
USAGE = [["--no-such-option"], ["--model"], ["--threads", "x"], ["--threads", "-1"],
         ["--memory", "6X"], ["--memory", ""], ["stray"], ["--threads", "100000"]]


def write(path, text):
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    return path


def check_wrong(programs, directory):
    path = os.path.join(directory, "wrong.yaml")
    for name, (text, place, words) in WRONG.items():
        write(path, text)
        done = service.run_moed(programs, "--config", path, "--check")
        service.equal(done.returncode, 2, f"{name}: exit status ({done.stderr.strip()})")
        service.expect(f"{path}:{place}" in done.stderr,
                       f"{name}: {place} is not named: {done.stderr.strip()}")
        for word in words:
            service.expect(word in done.stderr, f"{name}: '{word}' is not named: {done.stderr}")


def check_usage(programs):
    for options in USAGE:
        done = service.run_moed(programs, *options)
        service.equal(done.returncode, 2, f"moed {options}: exit status ({done.stderr.strip()})")
        service.expect("--help" in done.stderr or options[0] in done.stderr,
                       f"moed {options}: {done.stderr}")
        service.equal(done.stdout, "", f"moed {options}: standard output")
    for program in (programs.moed, programs.moectl, programs.moe_model):
        for option, begins in (("--help", "Usage: "), ("--version", "")):
            done = subprocess.run([program, option], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL)
            service.equal(done.returncode, 0, f"{program} {option}")
            service.equal(done.stderr, "", f"{program} {option}: standard error")
            service.expect(done.stdout.startswith(begins) and done.stdout, f"{program} {option}")


def check_models(programs, directory, dense):
    config = write(os.path.join(directory, "empty.yaml"), "# nothing\n")
    with open(dense, "rb") as file:
        data = file.read()
    cut = os.path.join(directory, "cut.gguf")
    with open(cut, "wb") as file:
        file.write(data[:len(data) // 2])
    text = write(os.path.join(directory, "text.gguf"), "this is no model\n" * 100)
    fifo = os.path.join(directory, "fifo.gguf")
    os.mkfifo(fifo)
    for path, word in ((os.path.join(directory, "none.gguf"), "No such file"), (cut, "cut.gguf"),
                       (text, "GGUF"), (directory, directory), (fifo, "fifo"), (os.devnull, "null")):
        done = service.run_moed(programs, "--config", config, "--model", path, "--check")
        service.equal(done.returncode, 1, f"{path}: exit status ({done.stderr.strip()})")
        service.expect(word in done.stderr, f"{path}: '{word}' is not named: {done.stderr}")
    done = service.run_moed(programs, "--config", config, "--check")
    service.expect(done.returncode in (1, 2) and "--model" in done.stderr,
                   f"no model: {done.returncode} {done.stderr}")
    done = service.run_moed(programs, "--config", os.path.join(directory, "none.yaml"), "--check")
    service.expect(done.returncode and "none.yaml" in done.stderr, f"no file: {done.stderr}")


def check_memory(programs, directory, moe):
    """One byte below the floor is refused, naming it; the floor itself works."""
    config = write(os.path.join(directory, "empty.yaml"), "")
    floor = programs.floor(moe)
    common = ["--config", config, "--model", moe, "--check"]
    done = service.run_moed(programs, *common, "--memory", str(floor - 1))
    service.equal(done.returncode, 1, f"below the floor: exit status ({done.stderr.strip()})")
    service.expect(str(floor) in done.stderr, f"the floor {floor} is not named: {done.stderr}")
    done = service.run_moed(programs, *common, "--memory", str(floor))
    service.equal(done.returncode, 0, f"at the floor: exit status ({done.stderr.strip()})")
    # Options beat the file.
    write(config, "memory:\n  limit: 1M\nmodel: /nowhere.gguf\n")
    done = service.run_moed(programs, *common, "--memory", str(floor))
    service.equal(done.returncode, 0, f"options beat the file ({done.stderr.strip()})")
    relative = os.path.relpath(moe)
    done = service.run_moed(programs, "--config", config, "--check", "--memory", "60%", "--model",
                            relative)
    service.equal(done.returncode, 0, f"a relative --model ({done.stderr.strip()})")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory, layers=2, hidden=64, ff=128)
        check_wrong(programs, directory)
        check_usage(programs)
        check_models(programs, directory, dense)
        check_memory(programs, directory, programs.upcycled(dense))
        shipped = os.path.join(os.path.dirname(__file__), "..", "..", "etc", "moed.yaml")
        done = service.run_moed(programs, "--config", shipped, "--model", dense, "--check")
        service.equal(done.returncode, 0, f"etc/moed.yaml itself ({done.stderr.strip()})")
    service.verdict(f"{len(WRONG) + len(USAGE)} refusals")


main()
