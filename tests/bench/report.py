# SPDX-License-Identifier: MIT
"""From the records of peers' runs: medians, spread, ratios, shares of the machine's limits; as a
JSON object, or as Markdown."""
import statistics

KEYS = ("tokens", "context", "sequences", "ttft_tokens", "memory")
LOWER_IS_BETTER = {"ttft_ms", "s", "us_per_layer", "cpu_s", "bytes"}


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "n": len(values)}


def rounded(value):
    """Six significant digits are more than any of this is worth."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


class Run:
    """The records of one model."""
    def __init__(self, records):
        self.head = next(r for r in records if r["test"] == "head")
        self.model = self.head["model"]
        self.records = [r for r in records if r["test"] not in ("head", "limits")]
        self.limits = self.best_limits([r["figures"] for r in records if r["test"] == "limits"])
        self.dram = self.limits.get("dram_read_gb_per_s", {}).get("all")
        self.rows = self.collect()

    @classmethod
    def best_limits(cls, all_figures):
        """Of each figure the best of all rounds: neighbours only slow one down."""
        best = {}
        for figures in all_figures:
            for key, value in figures.items():
                if isinstance(value, dict):
                    best[key] = cls.best_limits([best.get(key) or {}, value])
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    best[key] = max(value, best.get(key) or 0)
                else:
                    best[key] = value
        return best

    def collect(self):
        groups = {}
        for record in self.records:
            if "value" in record:
                key = tuple((k, record[k]) for k in KEYS if k in record)
                group = groups.setdefault((record["test"], key, record["unit"]), {})
                group.setdefault(record["engine"], []).append(record)
        rows = []
        for (test, key, unit), engines in groups.items():
            row = {"test": test, **dict(key), "unit": unit, "engines": {}}
            for engine, records in engines.items():
                row["engines"][engine] = {
                    **spread([r["value"] for r in records]),
                    "others_cpu_share": max(r["others_cpu_share"] for r in records)}
            self.compare(row)
            self.against_limits(row)
            rows.append(row)
        self.against_quiet(rows)
        order = list(TITLES)
        return sorted(rows, key=lambda row: (order.index(title_key(row)),
                                             *(row.get(k, 0) for k in KEYS if k != "memory")))

    @staticmethod
    def compare(row):
        peers = {name: one["median"] for name, one in row["engines"].items() if name != "moed"}
        if not peers:
            return
        lower = row["unit"] in LOWER_IS_BETTER
        best = (min if lower else max)(peers, key=peers.get)
        row["best_peer"] = best
        if "moed" in row["engines"]:
            ours = row["engines"]["moed"]["median"]
            row["ratio"] = peers[best] / ours if lower else ours / peers[best]

    def against_limits(self, row):
        if row["test"] == "decode" and self.dram:
            tokens = self.head["options"]["tokens"]
            row["bytes_per_token"] = self.model["weight_bytes_per_token"] + \
                self.model["kv_bytes_per_position"] * (row["context"] + tokens / 2)
            for one in row["engines"].values():
                one["share_of_dram"] = one["median"] * row["bytes_per_token"] / 1e9 / self.dram
        if row["test"] == "prefill" and "tokens" in row:
            for one in row["engines"].values():
                one["gmac_per_s"] = one["median"] * self.model["macs_per_token"] / 1e9
                for tier, loops in self.limits.get("int8_gmac_per_s", {}).items():
                    if loops["all"]["registers"]:
                        one[f"share_of_{tier}"] = one["gmac_per_s"] / loops["all"]["registers"]
        if row["test"] == "sequences":
            bound = next((r["figures"] for r in self.records if r["test"] == "union"
                          and r["sequences"] == row["sequences"]), None)
            if bound and self.dram:
                row["bytes_per_step"] = bound["bytes_per_step"]
                row["union_of_experts_bytes"] = bound["union_of_experts_bytes"]
                row["bound_tokens_per_s"] = row["sequences"] * self.dram * 1e9 / \
                    bound["bytes_per_step"]
                for one in row["engines"].values():
                    one["share_of_bound"] = one["median"] / row["bound_tokens_per_s"]

    @staticmethod
    def against_quiet(rows):
        quiet = next((r for r in rows if r["test"] == "decode" and r["context"] == 0), None)
        for row in rows:
            if row["test"] == "neighbour" and quiet:
                for name, one in row["engines"].items():
                    if name in quiet["engines"]:
                        one["share_of_quiet"] = one["median"] / quiet["engines"][name]["median"]

    def single(self, test):
        return [{k: v for k, v in r.items() if k not in ("test", "round")} for r in self.records
                if r["test"] == test]

    def object(self):
        result = {"machine": self.head["machine"], "model": self.model,
                  "options": self.head["options"], "engines": self.head["engines"],
                  "missing": self.head["missing"], "limits": self.limits, "results": self.rows}
        for test in ("start", "idle", "deep", "attention", "union"):
            found = self.single(test)
            if found:
                result[test] = found
        failed = self.single("failed")
        if failed:
            result["failed"] = failed
        return rounded(result)


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(value):
    return f"{value * 100:.0f}%"


TITLES = {"prefill": "prefill, {tokens} tokens", "ttft": "first token of {ttft_tokens}",
          "decode": "decode after {context}", "sequences": "sequences together: {sequences}",
          "neighbour": "decode, another process on one CPU", "peak": "peak memory",
          "dispatch": "64 near-empty layers",
          "streamed-prefill": "half the memory: prefill, {tokens} tokens",
          "streamed-decode": "half the memory: decode"}
UNITS = {"tokens_per_s": "tokens/s", "ttft_ms": "ms", "bytes": "GB", "us_per_layer": "us a layer"}


def title_key(row):
    return "ttft" if "ttft_tokens" in row else row["test"]


def of_limit(row):
    ours = row["engines"].get("moed", {})
    for key, text in (("share_of_bound", "of the bound by the union of experts"),
                      ("share_of_dram", "of DRAM"), ("share_of_quiet", "of its quiet rate"),
                      ("share_of_amx", "of AMX int8"), ("share_of_avx512vnni", "of VNNI")):
        if key in ours:
            return f"{percent(ours[key])} {text}"
    return ""


def table(run):
    engines = ["moed"] + [e for e in run.head["engines"] if e != "moed"]
    lines = ["| what | unit | " + " | ".join(engines) + " | moed to best peer | moed reaches |",
             "|---" * (len(engines) + 4) + "|"]
    for row in run.rows:
        unit = row["unit"]
        cells = []
        for engine in engines:
            one = row["engines"].get(engine)
            scale = 1e9 if unit == "bytes" else 1
            cells.append(number(one["median"] / scale) if one else "")
        title = TITLES[title_key(row)].format(**row)
        ratio = f"{row['ratio']:.2f}x" if "ratio" in row else ""
        lines.append("| " + " | ".join([title, UNITS.get(unit, unit), *cells, ratio,
                                        of_limit(row)]) + " |")
    return lines


def further(run):
    """What has no peers, a line each."""
    for one in run.single("deep"):
        figures = one["figures"]
        yield (f"decode after {figures['context']} tokens, engine alone: "
               f"{number(figures['tokens_per_s'])} tokens/s, "
               f"{percent(figures['share_of_dram'])} of DRAM over weights, keys and values")
    peak = max((loops["all"]["registers"] or 0 for loops in
                run.limits.get("f32_fma_gflop_per_s", {}).values()), default=0)
    for one in run.single("attention"):
        figures = one["figures"]
        share = f" ({percent(figures['gflop_per_s'] / peak)} of the f32 peak)" if peak else ""
        yield (f"attention of a prompt after {figures['context']} tokens: "
               f"{number(figures['us_per_token'])} us a token, "
               f"{number(figures['gflop_per_s'])} GFLOP/s{share}, "
               f"of {number(figures['prefill_us_per_token'])} us in all")
    for one in run.single("start"):
        yield (f"start, page cache empty, {one['memory']}: READY after {one['ready_s']:.2f} s; "
               f"the disk needs {one['disk_s']:.2f} s for these {one['bytes'] / 1e9:.2f} GB")
    for one in run.single("idle"):
        yield f"idle daemon: {one['cpu_s']:.2f} s of processor time in {one['wall_s']:.0f} s"
    for one in run.single("failed"):
        yield f"{one['engine']} failed in {one['failed_test']}: {one['text'][:150]}"
    for name, why in run.head["missing"].items():
        yield f"{name} was not measured: {why}"


def markdown(runs):
    lines = []
    for run in runs:
        machine, model = run.head["machine"], run.model
        lines += [f"**{model['name']}**, {model['type']}, {model['file_bytes'] / 1e9:.2f} GB, "
                  f"{run.head['options']['threads']} threads; {machine['cpu']}, "
                  f"{machine['cpus']} CPUs ({', '.join(machine['features'])}), "
                  f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}"
                  + (f"; DRAM {number(run.dram)} GB/s" if run.dram else "") + ".", ""]
        if run.rows:
            lines += [*table(run), ""]
        lines += [f"- {line}" for line in further(run)]
        lines += [f"- {name}: {engine['about']}"
                  + "".join(f"; `{command}`" for command in engine["commands"].values())
                  for name, engine in run.head["engines"].items()]
        lines.append("")
    return "\n".join(lines)
