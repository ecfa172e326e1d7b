# SPDX-License-Identifier: MIT
"""What may exist only once: the step function, the numerics, plan(), the cache policy.
Usage: once.py step|numerics|plan|policy"""
import re
import sys

import lint

CONTROL = {"if", "while", "for", "switch", "return", "sizeof"}


def definitions(files, name):
    """The files that define a function of that name."""
    pattern = re.compile(r"^[A-Za-z_][\w \t\*]*?[ \t\*]" + name + r"\([^;{}]*\)\s*\{", re.MULTILINE)
    return [path for path, text in files.items() for _ in pattern.finditer(lint.code(text))]


def calls(files, name):
    """The files that call it (definitions and declarations aside)."""
    found = set()
    for path, text in files.items():
        for match in re.finditer(r"\b" + name + r"\s*\(", lint.code(text)):
            line = lint.code(text)[:match.start()].rsplit("\n", 1)[-1]
            # A declaration or definition begins at the margin, with a type.
            if not re.match(r"[A-Za-z_]", line):
                found.add(path)
    return found


def only_one(files, name, folder):
    places = definitions(files, name)
    if len(places) > 1:
        return [f"{name}() is defined {len(places)} times: {', '.join(places)}"]
    if places and not places[0].startswith(folder + "/"):
        return [f"{name}() belongs in {folder}/, not in {places[0]}"]
    return []


def step(files):
    """Prefill and decode take the same way: one entry, one advance, one product of the experts."""
    complaints = []
    for name in ("engine_begin", "engine_advance"):
        complaints += only_one(files, name, "model")
    for path, text in files.items():
        for match in re.finditer(r"\b\w*(?:prefill|decode)\w*_(?:step|layer|forward)\w*\s*\(|"
                                 r"\b\w*(?:step|layer|forward)_(?:prefill|decode)\w*\s*\(",
                                 lint.code(text)):
            complaints.append(f"{path}:{lint.line_of(text, match.start())}: a step of its own for "
                              f"prefill or decode: {match.group(0)})")
    return complaints


# What rounds.  The sampler and statistics work on finished logits in double precision.
ROUNDING = re.compile(r"(?<![\w.>])(expf|exp2f|logf|log2f|powf|sinf|cosf|tanhf|fmaf|roundf|rintf|"
                      r"nearbyintf|lrintf|lroundf|sqrtf|_mm\w*_\w+)\s*\(")


def numerics(files):
    """Single-precision arithmetic that rounds is kernels' alone; its form has one definition."""
    complaints = []
    for name in ("kernels_init", "kernels_format", "kernels_row_bytes"):
        complaints += only_one(files, name, "kernels")
    for path, text in files.items():
        if path.startswith("kernels/"):
            continue
        bare = lint.code(text)
        for match in ROUNDING.finditer(bare):
            complaints.append(f"{path}:{lint.line_of(bare, match.start())}: {match.group(1)}(): "
                              "arithmetic that rounds is defined in kernels/ alone")
        for match in re.finditer(r"#[ \t]*pragma[ \t]+(?:STDC|GCC optimize)|__attribute__\(\(optimize",
                                 bare):
            complaints.append(f"{path}:{lint.line_of(bare, match.start())}: changes the arithmetic")
    return complaints


def plan(files):
    """One division of the memory, used by moed and by moe-model plan."""
    complaints = only_one(files, "plan_make", "model")
    for path, text in files.items():
        if re.match(r"model/plan[\w-]*\.c$", path):
            continue
        for match in re.finditer(r"\buse\[PLAN_\w+\]\s*[-+]?=[^=]", lint.code(text)):
            complaints.append(f"{path}:{lint.line_of(text, match.start())}: divides memory by itself")
    if definitions(files, "plan_make"):
        users = calls(files, "plan_make")
        for folder in ("daemon/", "model/cmd/"):
            there = [path for path in files if path.startswith(folder) and path.endswith(".c")]
            if there and not any(path.startswith(folder) for path in users):
                complaints.append(f"{folder} does not use plan_make()")
    return complaints


def policy(files):
    """One cache policy, pure, so that a replay of a trace runs what the engine runs."""
    complaints = []
    for name in ("policy_new", "policy_visit", "policy_victim", "policy_touch", "policy_insert",
                 "forecast_visit"):
        complaints += only_one(files, name, "offload")
    pure = {"errno.h", "stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h", "limits.h",
            "policy.h", "forecast.h",
            "forecast-internal.h", "num.h", "limit.h", "list.h", "cleanup.h", "error.h"}
    for path in set(definitions(files, "policy_victim") + definitions(files, "forecast_visit") +
                    definitions(files, "forecast_set")):
        for match in re.finditer(r'#[ \t]*include[ \t]*[<"]([^>"]+)[>"]',
                                 lint.code(files[path], strings=True)):
            if match.group(1) not in pure:
                complaints.append(f"{path}: a pure policy does not need <{match.group(1)}>")
    return complaints


BODY = "(int a)\n{\n\treturn a;\n}\n"
SAMPLES = {
    "step": {
        "two": {"model/a.c": "int engine_advance" + BODY, "model/b.c": "int engine_advance" + BODY},
        "elsewhere": {"daemon/a.c": "int engine_begin" + BODY},
        "own": {"model/a.c": "void f(void)\n{\n\tengine_decode_step(1);\n}\n"},
        "good": {"model/a.c": "int engine_advance" + BODY + "int engine_begin" + BODY},
    },
    "numerics": {
        "rounds": {"model/a.c": "float f(float x)\n{\n\treturn expf(x);\n}\n"},
        "intrinsic": {"model/a.c": "void f(void)\n{\n\t_mm256_add_ps(a, b);\n}\n"},
        "two": {"kernels/a.c": "int kernels_init" + BODY, "kernels/b.c": "int kernels_init" + BODY},
        "pragma": {"offload/a.c": "#pragma GCC optimize(\"fast-math\")\n"},
        "good": {"kernels/a.c": "float f(float x)\n{\n\treturn expf(x);\n}\n",
                 "model/a.c": "double f(double x)\n{\n\treturn exp(x); /* expf(x) */\n}\n"},
    },
    "plan": {
        "two": {"model/plan.c": "int plan_make" + BODY, "daemon/a.c": "int plan_make" + BODY},
        "own": {"daemon/a.c": "void f(void)\n{\n\tp.use[PLAN_KV] = 3;\n}\n"},
        "alone: unused": {"model/plan.c": "int plan_make" + BODY, "daemon/a.c": "int f" + BODY},
        "good": {"model/plan.c": "int plan_make" + BODY,
                 "daemon/a.c": "void f(void)\n{\n\tint r = plan_make(1);\n\tg(p.use[PLAN_KV] == 3);\n}\n"},
    },
    "policy": {
        "two": {"offload/a.c": "int policy_victim" + BODY, "offload/b.c": "int policy_victim" + BODY},
        "impure": {"offload/a.c": "#include <time.h>\nint policy_victim" + BODY},
        "good": {"offload/a.c": "#include <errno.h>\nint policy_victim" + BODY},
    },
}

if __name__ == "__main__":
    topic, every = sys.argv[1], lint.sources()
    if topic == "plan":
        # The real daemon, were it to divide by itself.
        SAMPLES[topic]["not the daemon"] = {
            path: text.replace("plan_make(", "plan_mine(") if path.startswith("daemon/") else text
            for path, text in every.items()}
    lint.run({"step": step, "numerics": numerics, "plan": plan, "policy": policy}[topic], every,
             SAMPLES[topic])
