# SPDX-License-Identifier: MIT
"""How long moed takes to be ready, and to have all experts in memory, beside what the disk needs for
the same bytes and what the machine takes to hand out memory.  Prints JSON.
Usage: resident.py MOED MOECTL MODEL [--rounds N] [--warm] [MOED-OPTION...]

The model's pages are dropped from the page cache before each round (moed reads around it anyway).
On a virtual machine the first touch of memory may cost far more than zeroing it, since the host has
to find it: "take_s_per_gib" is that, on one thread.  --warm lets another process take and free as
much right before each round, so that the host has it still."""
import json
import mmap
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PIECE, DEPTH, MADV_HUGEPAGE, MADV_POPULATE_WRITE = 1 << 20, 8, 14, 23
PATIENCE = 120


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def disk_seconds(path):
    """All bytes of the file, read directly, so many reads in flight, into memory that is there."""
    size = os.path.getsize(path) // PIECE * PIECE
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    lock, state = threading.Lock(), {"next": 0}

    def work():
        room = mmap.mmap(-1, 2 << 20)
        room.madvise(MADV_HUGEPAGE)
        room[:] = b"x" * len(room)
        view = memoryview(room)[:PIECE]
        while True:
            with lock:
                at = state["next"]
                state["next"] += PIECE
            if at >= size:
                return
            os.preadv(fd, [view], at)

    threads = [threading.Thread(target=work) for _ in range(DEPTH)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    os.close(fd)
    return seconds * os.path.getsize(path) / size


def take_seconds(size):
    room = mmap.mmap(-1, size)
    room.madvise(MADV_HUGEPAGE)
    start = time.monotonic()
    room.madvise(MADV_POPULATE_WRITE)
    seconds = time.monotonic() - start
    room.close()
    return seconds * (1 << 30) / size


def wait_ready(notify, start):
    while True:
        if "READY=1" in notify.recv(8192).decode():
            return time.monotonic() - start


def one_round(moed, moectl, model, options, folder):
    path = os.path.join(folder, "notify")
    if os.path.exists(path):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(PATIENCE)
        drop(model)
        start = time.monotonic()
        with subprocess.Popen(
                [moed, "--model", model, "--socket", os.path.join(folder, "s"), "--state", folder,
                 *options], env={**os.environ, "NOTIFY_SOCKET": path},
                stderr=subprocess.DEVNULL) as daemon:
            try:
                ready = wait_ready(notify, start)
                while True:
                    status = json.loads(subprocess.run(
                        [moectl, "--socket", os.path.join(folder, "s"), "status", "--json"],
                        check=True, capture_output=True, text=True).stdout)
                    if status["start"]["filled_after_s"] is not None:
                        break
                    if time.monotonic() - start > PATIENCE:
                        raise TimeoutError("the slots are never filled")
                    time.sleep(0.05)
            finally:
                daemon.terminate()
    return {"ready_s": ready, **status["start"], "experts": status["cache"]["experts"],
            "experts_resident": status["cache"]["experts_resident"],
            "resident_bytes": status["cache"]["resident_bytes"],
            "taken_bytes": status["taken_bytes"]}


def main():
    arguments, rounds, warm = sys.argv[1:], 3, False
    if "--rounds" in arguments:
        at = arguments.index("--rounds")
        rounds = int(arguments[at + 1])
        del arguments[at:at + 2]
    if "--warm" in arguments:
        arguments.remove("--warm")
        warm = True
    if len(arguments) < 3:
        sys.exit(__doc__)
    moed, moectl, model, *options = arguments
    take = take_seconds(512 << 20)
    drop(model)
    disk, found = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            disk.append(disk_seconds(model))
            if warm:
                subprocess.run([sys.executable, "-c", "import mmap; m = mmap.mmap(-1, "
                                f"{os.path.getsize(model) * 3 // 2}); m.madvise({MADV_HUGEPAGE}); "
                                f"m.madvise({MADV_POPULATE_WRITE})"], check=True)
            found.append(one_round(moed, moectl, model, options, folder))
    middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
    rate = os.path.getsize(model) / statistics.median(disk)
    read = middle["dense_bytes"] + middle["resident_bytes"]
    print(json.dumps({
        "model": model, "bytes": os.path.getsize(model), "rounds": rounds, "warm": warm,
        "disk_gb_per_s": round(rate / 1e9, 3), "take_s_per_gib": round(take, 3),
        "ready_s": round(middle["ready_s"], 3),
        "ready_beyond_disk_s": round(middle["ready_s"] - middle["dense_bytes"] / rate, 3),
        "filled_s": middle["filled_after_s"],
        "filled_over_disk": round(middle["filled_after_s"] / (read / rate), 3),
        "median": middle, "all": found, "disk_s": disk}, indent=1))


main()
