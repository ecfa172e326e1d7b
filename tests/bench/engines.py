# SPDX-License-Identifier: MIT
"""What peers measures: moed, driven with moectl as its users do, and other engines by the command
lines of peers.ini.  Each gives samples: (what was asked, unit, value)."""
import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = 16  # tokens of each of several sequences
PATIENCE = 300


class Fault(Exception):
    """A sentence for the user."""


class Measurer:
    """Runs commands by way of measure.py; again, a few times, where others took the processors."""
    def __init__(self, under, noise, retries):
        self.under, self.noise, self.retries = under, noise, retries

    def once(self, command, neighbour=None, watch=()):
        extra = [] if neighbour is None else ["--neighbour", str(neighbour)]
        for pid in watch:
            extra += ["--watch", str(pid)]
        measure = [sys.executable, os.path.join(HERE, "measure.py")]
        child = subprocess.Popen([*self.under, *measure, *extra, "--", *command], text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = child.communicate()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            raise
        try:
            result = json.loads(out)
        except ValueError:
            raise Fault(f"cannot measure '{command[0]}': {err.strip()[-300:]}") from None
        if result["status"]:
            raise Fault(f"'{shlex.join(command)}' ended with {result['status']}: "
                        f"{result['stderr'].strip()[-300:]}")
        return result

    def run(self, command, neighbour=None, watch=()):
        best = None
        for _ in range(self.retries + 1):
            result = self.once(command, neighbour, watch)
            if not best or result["others_cpu_share"] < best["others_cpu_share"]:
                best = result
            if best["others_cpu_share"] <= self.noise:
                break
        return best


def repeats(tokens):
    return max(1, min(5, 512 // tokens))


class Moed:
    """A daemon of our own in the foreground: its configuration, socket, state and log lie in a
    directory of ours."""
    name = "moed"

    def __init__(self, programs, directory, model, measurer, memory, threads, context, sessions,
                 under=()):
        self.programs, self.measurer = programs, measurer
        self.socket = os.path.join(directory, "moed.sock")
        self.log = os.path.join(directory, "moed.log")
        config = os.path.join(directory, "moed.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"model: {json.dumps(os.path.abspath(model))}\n"
                       f"memory:\n  limit: {memory}\n"
                       f"threads: {threads}\ncontext: {context}\nsessions: {sessions}\n")
        self.command = [*under, programs["moed"], "--config", config, "--socket", self.socket, "--state",
                        directory]
        self.process, self.about = None, ""

    def start(self):
        environment = {k: v for k, v in os.environ.items()
                       if k not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=environment)
        end = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise Fault(f"moed ended at once: {log.read().strip()[-500:]}")
            try:
                status = self.status()
                if status["state"] == "ready":
                    break
            except Fault:
                pass
            if time.monotonic() > end:
                raise Fault("moed does not become ready")
            time.sleep(0.1)
        self.about = f"moed {status['version']}, tier {status.get('tier', '?')}"
        return status

    def stop(self):
        """Its peak memory."""
        if not self.process or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * 1024

    def status(self):
        done = subprocess.run([self.programs["moectl"], "--socket", self.socket, "status",
                               "--json"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Fault(f"moectl status: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def bench(self, *options, neighbour=None):
        command = [self.programs["moectl"], "--socket", self.socket, "bench", "--json", *options]
        return self.measurer.run(command, neighbour, [self.process.pid])

    def prefill(self, case):
        for n in case["prompts"]:
            result = self.bench("--prompt-tokens", str(n), "--max-tokens", "1", "--repeat",
                                str(repeats(n)))
            figures = json.loads(result["stdout"])
            yield {"tokens": n}, "tokens_per_s", figures["prefill_tokens_per_s"], result
            yield {"ttft_tokens": n}, "ttft_ms", figures["ttft_ms"]["p50"], result

    def decode(self, case, neighbour=None):
        for n in case["contexts"]:
            result = self.bench("--context", str(n), "--prompt-tokens", "1", "--max-tokens",
                                str(case["tokens"]), neighbour=neighbour)
            figures = json.loads(result["stdout"])
            yield {"context": n}, "tokens_per_s", figures["decode_tokens_per_s"], result

    def sequences(self, case):
        for n in case["sequences"]:
            result = self.bench("--sequences", str(n), "--prompt-tokens", str(PROMPT),
                                "--max-tokens", str(case["tokens"]))
            rate = json.loads(result["stdout"])["decode_all_tokens_per_s"]
            if rate is None:
                raise Fault(f"{n} sequences were never under way at once")
            yield {"sequences": n}, "tokens_per_s", rate, result


def parse_llama_bench(text):
    start = text.find("[")
    for one in json.loads(text[start:] if start >= 0 else text):
        samples = sorted(one["samples_ts"])
        rate = samples[len(samples) // 2]
        if one["n_gen"]:
            yield {"context": one.get("n_depth", 0) or one["n_prompt"]}, rate
        else:
            yield {"tokens": one["n_prompt"]}, rate


def parse_batched_bench(text):
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("{"):
            one = json.loads(line)
            yield {"sequences": one["pl"]}, one["speed_tg"]
        elif len(cells) == 12 and re.fullmatch(r"\d+", cells[3]):
            yield {"sequences": int(cells[3])}, float(cells[8])


class Peer:
    """Another engine; its programs run once for each test and round."""
    def __init__(self, name, section, directory, model, measurer, threads):
        self.name, self.section, self.measurer = name, section, measurer
        self.about = section.get("about", name)
        self.values = {"directory": directory, "model": model, "threads": threads, "here": HERE,
                       "python": sys.executable, "prompt": PROMPT}
        self.commands = {}

    def command(self, test, **values):
        known = {**self.values, **values}
        flags = {key: self.section.get(key, "") for key in ("flags", "batched-flags")}
        parts = []
        for part in shlex.split(self.section[test]):
            if part == "{each-context}":
                for n in values["context_list"]:
                    if n:
                        parts += self.fill(self.section["each-context"], {**known, "context": n})
            elif part in ("{flags}", "{batched-flags}"):
                parts += shlex.split(flags[part[1:-1]])
            else:
                parts += self.fill(part, known)
        self.commands[test] = shlex.join(parts)
        return parts

    @staticmethod
    def fill(text, values):
        def value(match):
            if match.group(1) not in values:
                raise Fault(f"peers.ini: '{{{match.group(1)}}}' is not known")
            return str(values[match.group(1)])
        return [re.sub(r"\{([a-z-]+)\}", value, part) for part in shlex.split(text)]

    def run(self, test, neighbour=None, **values):
        return self.measurer.run(self.command(test, **values), neighbour)

    def prefill(self, case):
        if "prefill" not in self.section:
            return
        result = self.run("prefill", prompts=",".join(map(str, case["prompts"])))
        for key, rate in parse_llama_bench(result["stdout"]):
            yield key, "tokens_per_s", rate, result
            yield {"ttft_tokens": key["tokens"]}, "ttft_ms", key["tokens"] / rate * 1e3, result

    def decode(self, case, neighbour=None):
        if "decode" not in self.section:
            return
        result = self.run("decode", neighbour, tokens=case["tokens"],
                          contexts=",".join(map(str, case["contexts"])),
                          context_list=case["contexts"])
        for key, rate in parse_llama_bench(result["stdout"]):
            if key["context"] in case["contexts"]:
                yield key, "tokens_per_s", rate, result

    def sequences(self, case):
        if "sequences" not in self.section:
            return
        room = max(case["sequences"]) * (PROMPT + case["tokens"]) + 256
        result = self.run("sequences", tokens=case["tokens"], room=room,
                          sequences=",".join(map(str, case["sequences"])))
        for key, rate in parse_batched_bench(result["stdout"]):
            yield key, "tokens_per_s", rate, result


def read_sections(path):
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    with open(path, encoding="utf-8") as file:
        parser.read_file(file)
    sections = {}
    for name in parser.sections():
        own = dict(parser[name])
        like = own.pop("like", None)
        if like and like not in sections:
            raise Fault(f"'{path}': [{name}] is like [{like}], which does not stand before it")
        sections[name] = {**sections.get(like, {}), **own}
    return sections


def find_peers(path, directories, wanted, model, measurer, threads):
    """The engines that are here, and why the others are not."""
    found, missing = [], {}
    sections = read_sections(path)
    for name in directories:
        if name not in sections:
            raise Fault(f"'{path}' has no engine '{name}': it has {', '.join(sections)}")
    for name, section in sections.items():
        if wanted and name not in wanted:
            continue
        variable = section.get("directory", "")
        given = next((directories[n] for n, s in sections.items() if n in directories
                      and s.get("directory") == variable), os.environ.get(variable, ""))
        program = Peer.fill(section["program"], {"directory": given})[0] if given else ""
        if not given:
            missing[name] = f"neither --directory nor ${variable} says where it is"
        elif not shutil.which(program):
            missing[name] = f"'{program}' is no program"
        else:
            found.append(Peer(name, section, os.path.abspath(given) if os.path.isdir(given)
                              else given, model, measurer, threads))
    for name in wanted or ():
        if name not in sections and name != Moed.name:
            raise Fault(f"'{path}' has no engine '{name}': it has moed, {', '.join(sections)}")
    return found, missing
