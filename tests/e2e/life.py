# SPDX-License-Identifier: MIT
"""The life of a daemon: readiness, status, reload, drain, a second instance, restarts under a
conversation, socket activation, and what the service manager is told.
Usage: life.py MOED MOECTL MOE-MODEL"""
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import service

LONG = 16000  # tokens: enough to be under way when something happens


def check_status(daemon):
    status = daemon.status()
    for key in ("model", "budget", "cache", "prefetch", "io", "sessions", "queue", "tokens", "latencies_ms",
                "version", "uptime_s"):
        service.expect(key in status, f"the status lacks {key}")
    budget = dict(status["budget"])
    limit = budget.pop("limit")
    service.equal(sum(budget.values()), limit, "the uses of the budget together")
    service.expect(status["arena_bytes"] <= limit, "the arena is larger than the limit")
    text = daemon.moectl("status")
    service.equal(text.returncode, 0, "status as text")
    service.expect("budget" in text.stdout and "\x1b" not in text.stdout, "status as text")
    pong = daemon.json("ping", "--json", "--count", "50")
    service.expect(0 < pong["p50_us"] <= pong["p99_us"], f"ping: {pong}")


def check_second(programs, daemon, dense):
    """Another daemon on the same socket is refused, and the first does not notice."""
    done = service.run_moed(programs, "--config", daemon.config_path, "--model", dense, "--socket",
                            daemon.socket, "--state", daemon.directory)
    service.equal(done.returncode, 1, "a second daemon on the same socket")
    service.expect(daemon.socket in done.stderr, f"it does not name the socket: {done.stderr}")
    service.equal(daemon.moectl("ping", "--count", "3").returncode, 0, "the first daemon after it")


def check_reload(daemon):
    before = len(daemon.ask("the king")["ids"])
    service.expect(before > 3, f"an answer of {before} tokens is too short for this test")
    daemon.configure("limits:\n  tokens: 3\nthreads: 1\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"reloaded?: .*changed")
    service.equal(len(daemon.ask("the king")["ids"]), 3, "tokens after limits.tokens: 3")
    service.expect(re.search(r"threads.*restart", daemon.log()), "threads: needs a restart, unsaid")
    daemon.configure("limits:\n  tokens: -1\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"yaml:2:11: limits\.tokens")
    service.equal(len(daemon.ask("the king")["ids"]), 3, "tokens after a reload that failed")
    daemon.configure("")
    daemon.signal(signal.SIGHUP)
    service.wait_for(lambda: len(daemon.ask("the king")["ids"]) == before,
                     "limits.tokens did not go back to its default")


def is_busy(daemon):
    return daemon.status()["queue"]["active"] > 0


def check_cancel(daemon):
    """Ctrl-C at moectl ends the computation in the daemon too."""
    child = daemon.spawn("prompt", "--raw", "--json", "--max-tokens", str(LONG), "--", "the king")
    service.wait_for(lambda: is_busy(daemon), "the request does not begin")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=service.PATIENCE)
    service.equal(child.returncode, 130, f"moectl after Ctrl-C ({err})")
    service.equal(json.loads(out)["finish"], "cancelled", "how it finished")
    service.wait_for(lambda: not is_busy(daemon), "the daemon goes on computing")
    child = daemon.spawn("prompt", "--raw", "--max-tokens", str(LONG), "--", "the king")
    service.wait_for(lambda: is_busy(daemon), "the request does not begin")
    child.kill()
    child.communicate()
    service.wait_for(lambda: not is_busy(daemon), "it computes for a client that has gone")


def check_drain(daemon):
    """SIGTERM: the answer under way is finished, nothing new is taken, status 0."""
    daemon.configure("drain: 600\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"reload: drain changed")
    child = daemon.spawn("prompt", "--raw", "--json", "--max-tokens", "4000", "--", "the king")
    service.wait_for(lambda: is_busy(daemon), "the request does not begin")
    status = daemon.stop()
    out, err = child.communicate(timeout=service.PATIENCE)
    service.equal(status, 0, "exit status after SIGTERM")
    if service.expect(child.returncode == 0, f"the answer under way: {child.returncode} {err}"):
        service.expect(json.loads(out)["finish"] in ("length", "stop"), "the answer is cut short")
    service.expect(not os.path.exists(daemon.socket), "the socket is left behind")


def check_kill(daemon):
    """After kill -9 the next one takes the stale socket over."""
    daemon.process.kill()
    daemon.process.wait()
    service.expect(os.path.exists(daemon.socket), "kill -9 cannot have removed the socket")
    done = daemon.moectl("status")
    service.equal(done.returncode, 1, "moectl without a daemon")
    service.expect(daemon.socket in done.stderr, f"it does not name the socket: {done.stderr}")
    daemon.start()
    service.equal(daemon.ask("the king")["prompt_tokens"] > 0, True, "after kill -9")


class Terminal:
    """moectl in a conversation, on a terminal of its own."""
    def __init__(self, daemon):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execv(daemon.programs.moectl, ["moectl", "--socket", daemon.socket, "prompt",
                                              "--max-tokens", "4"])
        self.pid, self.text = pid, ""

    def wait(self, condition, what):
        end = time.monotonic() + service.PATIENCE
        while not condition(self.text):
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: {self.text!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    return

    def say(self, line):
        """A line, and then what comes until the terminal is quiet again."""
        self.text = ""
        os.write(self.fd, (line + "\n").encode())

    def close(self):
        os.write(self.fd, b"\x04")
        self.wait(lambda text: False, "the end")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def check_reconnect(daemon):
    """A conversation outlives a restart of the daemon."""
    terminal = Terminal(daemon)
    asked = daemon.status()["tokens"]["generated"]
    terminal.say("the king")
    terminal.wait(lambda text: daemon.status()["tokens"]["generated"] >= asked + 4, "an answer")
    service.equal(daemon.stop(), 0, "exit status")
    daemon.start()
    # What was said to the one that has gone may have to be said again.
    terminal.say("the thing")
    terminal.wait(lambda text: "gone" in text or daemon.status()["tokens"]["generated"] >= 4,
                  "a word about the restart")
    if "gone" in terminal.text:
        terminal.say("the thing")
    terminal.wait(lambda text: daemon.status()["tokens"]["generated"] >= 4,
                  "an answer after the restart")
    service.equal(terminal.close(), 0, "the end of the conversation")


class Activated(service.Service):
    """With the listening socket handed over, as systemd does it."""
    def __init__(self, programs, directory, *options, name="moed", **others):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.path.join(directory, "activated.sock")
        self.listener.bind(path)
        self.listener.listen(16)
        os.dup2(self.listener.fileno(), 3)
        super().__init__(programs, directory, *options, socket=path,
                         environment={"LISTEN_FDS": "1", "LISTEN_FDNAMES": name},
                         wrap=["/bin/sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "sh"],
                         **others)
        # --socket is for those to whom none is passed; it is the client's here.

    def passed(self):
        return (3,)

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.listener.close()
        os.close(3)
        os.unlink(self.socket)


def check_activation(programs, directory, dense):
    with Activated(programs, directory, "--model", dense, ready=False) as daemon:
        # The client comes before the daemon is ready, and waits for it.
        answer = daemon.ask("the king")
        service.expect(len(answer["ids"]) > 0, "no answer through the passed socket")
        service.equal(daemon.stop(), 0, "exit status with a passed socket")
        service.expect(os.path.exists(daemon.socket), "the passed socket is systemd's, not moed's")
    tool = service.has("systemd-socket-activate")
    if not tool:
        print("systemd-socket-activate is not installed: not tried")
        return
    path = os.path.join(directory, "tool.sock")
    with service.Service(programs, directory, "--model", dense, socket=path, ready=False,
                         wrap=[tool, "--seqpacket", "--fdname=moed", "-l", path]) as daemon:
        service.wait_for(lambda: os.path.exists(path), "systemd-socket-activate does not listen")
        service.expect(len(daemon.ask("the king")["ids"]) > 0, "no answer when socket-activated")
        service.equal(daemon.stop(), 0, "exit status when socket-activated")


def check_notify(programs, directory, moe):
    """READY only when a prompt would be answered; percent while it loads; watchdog; stopping."""
    path = os.path.join(directory, "notify")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(path)
    manager.settimeout(service.PATIENCE)
    seen = []

    def until(pattern):
        while not any(re.search(pattern, message, re.MULTILINE) for message in seen):
            seen.append(manager.recv(4096).decode())

    with service.Service(programs, directory, "--model", moe, ready=False,
                         environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}) as daemon:
        until(r"^READY=1$")
        service.equal(daemon.status()["state"], "ready", "the state after READY=1")
        loading = [m for m in seen if re.search(r"^STATUS=.*\d ?%", m, re.MULTILINE)]
        service.expect(loading, f"no STATUS with percent before READY: {seen}")
        service.expect(any("EXTEND_TIMEOUT_USEC=" in m for m in seen), "no EXTEND_TIMEOUT_USEC")
        service.equal(sum("READY=1" in m for m in seen), 1, "READY while it loads")
        seen.clear()
        until(r"^WATCHDOG=1$")
        seen.clear()
        until(r"^WATCHDOG=1$")
        daemon.signal(signal.SIGHUP)
        until(r"^RELOADING=1$")
        service.expect(any("MONOTONIC_USEC=" in m for m in seen), "RELOADING without its time")
        seen.clear()
        until(r"^READY=1$")
        daemon.signal(signal.SIGTERM)
        until(r"^STOPPING=1$")
        service.equal(daemon.process.wait(service.PATIENCE), 0, "exit status")
    manager.close()


def check_users(programs, directory, dense):
    """Who may do what: the socket's mode decides who comes in, the kernel's word who administers."""
    if os.geteuid():
        print("not root: nobody else to be: not tried")
        return
    # The build may lie where others cannot look.
    os.chmod(directory, 0o755)
    library = os.path.join(os.path.dirname(programs.moectl), "libmoe.so.0")
    moectl = shutil.copy(programs.moectl, directory)
    shutil.copy(library, directory)

    def nobody(*arguments):
        return subprocess.run([moectl, "--socket", daemon.socket, *arguments], user=65534,
                              group=65534, extra_groups=[], capture_output=True, text=True,
                              env={"LD_LIBRARY_PATH": directory}, stdin=subprocess.DEVNULL)

    with service.Service(programs, directory, "--model", dense,
                         config="socket-mode: 0600\n") as daemon:
        done = nobody("status")
        service.equal(done.returncode, 1, "a stranger at a socket of mode 0600")
        service.expect("group moed" in done.stderr, f"a stranger is told: {done.stderr}")
        service.equal(daemon.stop(), 0, "exit status")
    with service.Service(programs, directory, "--model", dense,
                         config="socket-mode: 0666\n") as daemon:
        done = nobody("prompt", "--max-tokens", "2", "hello")
        service.equal(done.returncode, 0, f"prompt of a user ({done.stderr})")
        for verb in ("reload", "drain"):
            done = nobody(verb)
            service.equal(done.returncode, 1, f"{verb} of a user")
            service.expect("moed-admin" in done.stderr, f"{verb} of a user: {done.stderr}")
        done = nobody("status", "--json")
        service.expect(done.returncode == 0 and "all" not in json.loads(done.stdout)["sessions"],
                       f"a user sees others' figures: {done.stdout}")
        service.expect("all" in daemon.status()["sessions"], "root does not see others' figures")
        service.equal(daemon.moectl("reload").returncode, 0, "reload of root")
        daemon.configure("nonsense: 1\n")
        done = daemon.moectl("reload")
        service.equal(done.returncode, 1, "reload of a broken file")
        service.expect(":1:1:" in done.stderr, f"reload of a broken file: {done.stderr}")
        service.equal(daemon.moectl("drain").returncode, 0, "drain of root")
        service.equal(daemon.process.wait(service.PATIENCE), 0, "exit status after drain")


def main():
    programs = service.Programs(*sys.argv[1:])
    with service.Directory() as directory:
        dense = programs.dense(directory, context=16384, endless=True)
        moe = programs.upcycled(dense)
        with service.Service(programs, directory, "--model", dense) as daemon:
            check_status(daemon)
            check_second(programs, daemon, dense)
            check_reload(daemon)
            check_cancel(daemon)
            check_kill(daemon)
            check_reconnect(daemon)
            check_drain(daemon)
        check_activation(programs, directory, dense)
        check_notify(programs, directory, moe)
        check_users(programs, directory, dense)
    service.verdict("a life")


main()
