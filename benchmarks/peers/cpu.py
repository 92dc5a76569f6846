#!/usr/bin/env python3
"""weft beside PyTorch and JAX on the CPU: tokens a second, share of the roof, memory and page faults of whole models.

    cpu.py VENV [--lines C1,C2] [--steps 5] [--out build/cpu]       make_venv.sh makes VENV

Programs take turns, each in a process of its own, round after round. No timing counts unless the first losses agree, nor where the
roofs of fused multiply-adds before and after it differ by more than 5 %: such a run is repeated up to three times. Where MKL does not
know the processor it keeps to AVX2; PyTorch is measured as installed ("plain") and with that lifted. Writes cpu.json, cpu.md and cpu.svg
into the folder after each line, so nothing is lost when it is stopped; lines measured before on the same processor stay.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from html import escape

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LOSSES = {"float": (1e-4, 1e-3), "bf16": (2e-3, 1e-2)}  # how far apart those of steps 1 and 3 may be, relative
MODES = ["compiled", "eager"]


# ---- What cpu_torch.py and cpu_jax.py share.

def peer_parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_models")
    parser.add_argument("id")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dtype", choices=["float", "bf16"], default="float")
    parser.add_argument("--steps", type=int, default=5, help="at least so many")
    parser.add_argument("--seconds", type=float, default=3, help="and at least so long")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def ask(program, what):
    return json.loads(subprocess.run([program, what], check=True, stdout=subprocess.PIPE, text=True).stdout)


def describe(program, id):
    for line in ask(program, "list"):
        if line["id"] == id:
            return line
    raise SystemExit(f"bench_models knows no line {id}")


def mix(seed, site):
    """weft::mix of core/philox.hpp."""
    mask = 2 ** 64 - 1
    h = (site + 0x9e3779b97f4a7c15) & mask
    for value in (seed, 0):
        h ^= value
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9 & mask
        h = (h ^ h >> 27) * 0x94d049bb133111eb & mask
        h ^= h >> 31
    return h


def random_tokens(line, n):
    return [mix(line["seed"], i) % line["vocab"] for i in range(n)]


def rates(seconds, tokens):
    return {"best": tokens / min(seconds), "median": tokens / statistics.median(seconds)}


class Timing:
    """Repeats work() as the options say, between two looks at the roofs."""

    def __init__(self, args, work):
        self.seconds = []
        time.sleep(0.3)  # idle threads may spin for a while
        before = ask(args.program, "roof")
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        while len(self.seconds) < args.steps or time.perf_counter() - start < args.seconds:
            begin = time.perf_counter()
            work()
            self.seconds.append(time.perf_counter() - begin)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        time.sleep(0.3)
        after = ask(args.program, "roof")
        self.faults = (usage.ru_minflt - faults) / len(self.seconds)
        self.peak_rss = usage.ru_maxrss * 1024
        self.roofs = {name: [before[name], after[name]] for name in ("fma_roof", "read_bandwidth")}

    def result(self, losses):
        return {"steps": len(self.seconds), "losses": losses, "peak_rss": self.peak_rss, "faults_per_step": self.faults, **self.roofs}


def print_result(line, args, engine, result):
    costs = {name: line[name] for name in ("flops_per_token", "prefill_flops_per_token", "bytes_per_step") if name in line}
    print(json.dumps({"id": line["id"], "engine": engine, "dtype": args.dtype, "recompute": False, "threads": args.threads, **result, **costs}), flush=True)


# ---- The lines, and what weft must reach: shares of the roof, ratios to the fastest PyTorch, plain or lifted, GB.

class Line:
    def __init__(self, group, id, dtype="float", recompute=False, jax=False, **targets):
        self.group, self.id, self.dtype, self.recompute, self.jax, self.targets = group, id, dtype, recompute, jax, targets
        self.name = id + (" bf16" if dtype == "bf16" else "") + (" recompute" if recompute else "")


LINES = [
    Line("C1", "gpt2-124m 4x64", share=0.72, over=1.25, jax=True),
    Line("C1", "gpt2-124m 4x256", share=0.79, over=1, jax=True),
    Line("C1", "gpt2-124m 1x1024", share=0.79, over=1.3),
    Line("C1", "gpt2-124m 4x1024", share=0.80, over=1.3, gb=3.7),
    Line("C1", "gpt2-124m 4x1024", recompute=True, share=0.67, gb=2.5),
    Line("C2", "llama-125m 4x512", share=0.81, over=1),
    Line("C2", "llama-125m 2x2048", share=0.78, over=1.25, gb=3.7),
    Line("C3", "baby-gpt 1x256", share=0.65, over=1),
    Line("C3", "baby-gpt 12x256", share=0.75, over=1),
    Line("C3", "baby-gpt 64x256", share=0.74, over=1.1),
    Line("C3n", "nanogpt 12x64", share=0.55, over=1),
    Line("C4", "moe-114m 4x512", share=0.72, over=1),
    Line("C5", "generate 1x512+128", prefill=0.72, bandwidth=0.85),
    Line("C5", "generate 8x512+128", prefill=0.72, batched=(6, 0.35)),
    Line("C6", "gpt2-124m 4x1024", dtype="bf16", over=1.45, over_float=1.65),
    Line("C6", "llama-125m 4x512", dtype="bf16", over=1.4, over_float=1.6),
    Line("tiny", "tiny 2x32", jax=True),
    Line("tiny", "tiny 2x32", recompute=True),
    Line("tiny", "tiny-llama 2x32"),
    Line("tiny", "tiny-moe 2x32"),
    Line("tiny", "tiny-generate 2x24+8"),
    Line("tiny", "tiny 2x32", dtype="bf16"),
]


def processor():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(map(str.strip, row.split(":", 1)) for row in text.split("\n\n")[0].splitlines() if ":" in row)
    flags = set(fields.get("flags", "").split())
    return {"name": fields.get("model name", "unknown"), "intel": fields.get("vendor_id") == "GenuineIntel", "bf16": bool(flags & {"avx512_bf16", "amx_bf16"})}


def keep_to_cores(n):
    """This process and its children run on n cores, one logical processor of each, where the machine has more."""
    def core(i):
        folder = pathlib.Path(f"/sys/devices/system/cpu/cpu{i}/topology")
        try:
            return (folder / "physical_package_id").read_text(), (folder / "core_id").read_text()
        except OSError:
            return i
    one_each = {core(i): i for i in sorted(os.sched_getaffinity(0), reverse=True)}
    if len(one_each) >= n:
        os.sched_setaffinity(0, sorted(one_each.values())[:n])


# ---- Running.

class Program:
    """One of those that take turns on a line."""

    def __init__(self, name, command, lift=None):
        self.name, self.command, self.lift = name, command, lift
        self.runs, self.error, self.dropped = [], None, 0  # a dropped run leaves None, so that rounds stay aligned

    def run(self, args, folder):
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        environment.pop("OMP_PROC_BIND", None)  # whatever a peer's first thread starts would stay on its core
        if self.lift:
            environment["LD_PRELOAD"] = str(self.lift)
        child = subprocess.run(self.command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if child.returncode != 0:
            last = child.stderr.strip().splitlines()[-1:] or [""]
            raise RuntimeError(f"ended with {child.returncode}: {last[0]}")
        return json.loads(child.stdout.strip().splitlines()[-1])

    def turn(self, args, folder, agrees):
        """A run that counts, or None. Throws where it fails, or its losses do not agree."""
        for _ in range(4):
            result = self.run(args, folder)
            agrees(result)
            a, b = result["fma_roof"]
            if abs(a - b) <= args.steady * max(a, b):
                print(f"  {self.name}: {result['tokens_per_s']['best']:,.0f} tokens/s, {percent(share(result))} of {mean(result, 'fma_roof') * 1e-9:.0f} GFLOP/s", flush=True)
                return result
            self.dropped += 1
            print(f"  {self.name}: dropped, the roof went from {a * 1e-9:.0f} to {b * 1e-9:.0f} GFLOP/s", flush=True)
        return None


def percent(x, digits=0):
    return f"{100 * x:.{digits}f} %"


def mean(result, name):
    return statistics.mean(result[name])


def share(result, part="", of="fma_roof"):
    """Of the FMA roof or, for decoding, of the read bandwidth; by the best step."""
    best = result[part + "tokens_per_s"]["best"]
    if of == "fma_roof":
        return best * result[part + "flops_per_token"] / mean(result, of)
    return best / result["batch"] * result["bytes_per_step"] / max(result[of])


def of_floor(result):
    """Of the serial floor: a step's products at the speed of the fastest, and AdamW at the read bandwidth."""
    if "serial_floor" in result:
        return result["serial_floor"] * result["tokens_per_s"]["best"] / result["tokens_a_step"]


def expect_losses(result, reference, dtype):
    tolerances = LOSSES[dtype]
    for step, tolerance in zip((0, 2), tolerances):
        a, b = result["losses"][step], reference["losses"][step]
        if not abs(a - b) <= tolerance * abs(b):
            raise RuntimeError(f"loss {step + 1} is {a:.7g}, weft's {b:.7g}: more than {tolerance:g} apart")


def programs_of(line, args, weights, lift, machine):
    times = ["--steps", str(args.steps), "--seconds", str(args.seconds)]
    dtype = ["--dtype", line.dtype]
    weft = [args.weft, line.id, *times]
    result = [Program("weft", [*weft, *dtype, *(["--recompute"] if line.recompute else [])])]
    if line.dtype == "bf16":
        result.append(Program("weft float", [*weft, "--read", weights]))
    if line.recompute:
        return result
    peer = [args.weft, line.id, "--weights", weights, "--threads", str(args.threads), *times]
    for name, library in [("plain", None), ("lifted", lift)]:
        if name == "lifted" and machine["intel"]:
            continue  # nothing to lift
        for mode in MODES:
            result.append(Program(f"PyTorch {mode}, {name}", [args.python, str(HERE / "cpu_torch.py"), *peer, *dtype, *(["--compile"] if mode == "compiled" else [])], library))
    if line.jax and args.jax:
        result.append(Program("JAX", [args.python, str(HERE / "cpu_jax.py"), *peer]))
    wanted = [w.strip().lower() for w in args.peers.split(",")] if args.peers else None
    return [p for p in result if p.name.startswith("weft") or wanted is None or any(w in p.name.lower() for w in wanted)]


def measure(line, args, folder, lift, machine):
    description = describe(args.weft, line.id)
    weights = str(folder / "weights.safetensors")
    subprocess.run([args.weft, line.id, "--dtype", line.dtype, "--write", weights], check=True)
    programs = programs_of(line, args, weights, lift, machine)
    reference = None  # weft's first run, whether its timing counts or not

    def agrees(result):
        nonlocal reference
        reference = reference or result
        result["batch"], result["tokens_a_step"] = description["batch"], description["batch"] * description["context"]
        expect_losses(result, reference, line.dtype)

    for round in range(args.rounds):
        for program in programs:
            if program.error:
                continue
            try:
                run = program.turn(args, folder, agrees)
            except (RuntimeError, ValueError) as error:
                program.error = str(error)
                print(f"  {program.name}: {program.error}", flush=True)
                if program is programs[0]:
                    return {"programs": {program.name: {"runs": [], "error": program.error}}}
                continue
            program.runs.append(run)
    pathlib.Path(weights).unlink()
    return {"programs": {p.name: {"runs": p.runs, "dropped": p.dropped, "error": p.error} for p in programs}}


# ---- What came of it.

def best(entry, part=""):
    """The fastest of a program's runs that count."""
    return max((r for r in entry["runs"] if r), key=lambda r: r[part + "tokens_per_s"]["best"], default=None) if not entry["error"] else None


def ratio(a, b, part=""):
    """The median over rounds of a's speed over b's; without a common round, of the best."""
    key = part + "tokens_per_s"
    common = [x[key]["best"] / y[key]["best"] for x, y in zip(a["runs"], b["runs"]) if x and y]
    if common:
        return statistics.median(common)
    x, y = best(a, part), best(b, part)
    return x[key]["best"] / y[key]["best"] if x and y else None


def bar(row, kind):
    return row["programs"].get(row["bars"].get(kind))


def rows_of(line, result, results):
    """One row for training, two for a generation: what the table and the picture show."""
    programs, t = result["programs"], line.targets
    weft = programs["weft"]
    parts = [("", "")] if "generate" not in line.id else [("prefill_", " prefill"), ("", " decode")]
    rows = []
    for part, suffix in parts:
        w = best(weft, part)
        row = {"line": line.group, "name": line.name + suffix, "error": weft["error"], "programs": {}, "bars": {}, "checks": [], "target": None, "of": "fma_roof"}
        rows.append(row)
        if not w:
            row["error"] = row["error"] or "no run that counts: the machine was not steady"
            continue
        if suffix == " decode" and "batched" not in t:
            row["of"] = "read_bandwidth"
        for name, entry in programs.items():
            if b := best(entry, part):
                row["programs"][name] = {"tokens_per_s": b[part + "tokens_per_s"]["best"], "share": share(b, part, row["of"]), "ratio": ratio(weft, entry, part),
                                         "peak_rss": b["peak_rss"], "faults": b["faults_per_step"]}
        for kind in ("weft", "weft float", "PyTorch", "lifted", "plain", "JAX"):  # the fastest of each kind
            names = [n for n in row["programs"] if n == kind or kind in n and not kind.startswith("weft")]
            if names:
                row["bars"][kind] = max(names, key=lambda n: row["programs"][n]["tokens_per_s"])
        strongest, float_bar = bar(row, "PyTorch"), bar(row, "weft float")

        def check(text, value, ok):
            row["checks"].append({"text": text, "value": value, "met": ok})

        def check_share(least, of):
            reached = share(w, part, of)
            row["target"] = least
            floor = of_floor(w) if not part else None  # 90 % of it counts too, for what no processor of this kind can reach
            check(f"{percent(least)} of the {'roof' if of == 'fma_roof' else 'read bandwidth'}",
                  percent(reached) + (f", {percent(floor)} of the floor" if floor else ""), reached >= least or (floor or 0) >= 0.9)

        if part == "prefill_":
            if "prefill" in t:
                check_share(t["prefill"], "fma_roof")
            continue
        if "share" in t:
            check_share(t["share"], "fma_roof")
        if "bandwidth" in t:
            check_share(t["bandwidth"], "read_bandwidth")
        if "batched" in t:  # the lesser of a multiple of batch 1 and a share of the roof
            times, least = t["batched"]
            one = results.get("generate 1x512+128")
            one = best(one["programs"]["weft"]) if one else None
            reached, multiple = share(w), w["tokens_per_s"]["best"] / one["tokens_per_s"]["best"] if one else 0
            row["target"] = min(least, reached * times / multiple) if one else least
            check(f"{times} x batch 1 or {percent(least)} of the roof", f"{multiple:.1f} x, {percent(reached)}", reached >= least or multiple >= times)
        if "over" in t and strongest:
            text = f"{t['over']:g} x PyTorch" if t["over"] > 1 else "ahead of PyTorch"
            check(text, f"{strongest['ratio']:.2f} x", strongest["ratio"] >= t["over"] if t["over"] > 1 else strongest["ratio"] > 1)
        if "over_float" in t and float_bar:
            check(f"{t['over_float']:g} x float", f"{float_bar['ratio']:.2f} x", float_bar["ratio"] >= t["over_float"])
        if "gb" in t:
            check(f"{t['gb']:g} GB", f"{w['peak_rss'] * 1e-9:.2f} GB", w["peak_rss"] <= t["gb"] * 1e9)
    return rows


def markdown(rows, data):
    def cell(row, kind):
        if not (b := bar(row, kind)):
            return "–"
        mode = "".join(" " + m for m in MODES if m in row["bars"][kind])
        return f"{b['tokens_per_s']:,.0f}{mode} ({b['ratio']:.2f} x)"

    lines = [f"{data['processor']['name']}, {data['threads']} threads; {', '.join(data['engines'])}. Tokens a second of the best step; in brackets how many times faster weft is.",
             "Shares are of the FMA roof measured beside each run (of one-sequence decoding: of the read bandwidth).", "",
             "| line | model | weft | share | PyTorch plain | PyTorch lifted | JAX | peak RSS, GB (PyTorch) | faults a step (PyTorch) | must reach | met |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row["error"]:
            lines.append(f"| {row['line']} | {row['name']} | {row['error'].replace('|', '/')} | | | | | | | | |")
            continue
        weft, torch = bar(row, "weft"), bar(row, "PyTorch")
        beside = lambda form, name, scale=1: format(weft[name] * scale, form) + (f" ({format(torch[name] * scale, form)})" if torch else "")
        met = "; ".join(f"{'yes' if c['met'] else 'no'}: {c['value']}" for c in row["checks"]) or "–"
        lines.append(f"| {row['line']} | {row['name']} | {weft['tokens_per_s']:,.0f} | {percent(weft['share'])} | {cell(row, 'plain')} | {cell(row, 'lifted')} | {cell(row, 'JAX')} | "
                     f"{beside('.2f', 'peak_rss', 1e-9)} | {beside(',.0f', 'faults')} | {'; '.join(c['text'] for c in row['checks']) or '–'} | {met} |")
    return "\n".join(lines) + "\n"


STYLE = """
  .ground { fill: #ffffff; } text { font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; font-size: 13px; fill: #1f2328; } .small { font-size: 11px; fill: #59636e; }
  .title { font-size: 16px; font-weight: 600; } .grid { stroke: #d1d9e0; } .goal { stroke: #1f2328; stroke-width: 2; }
  .weft { fill: #1f6feb; } .lifted { fill: #d9822b; } .plain { fill: #e8b77d; } .jax { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #30363d; } .goal { stroke: #e6edf3; }
    .weft { fill: #4493f8; } .lifted { fill: #db8b3a; } .plain { fill: #8a5a24; } .jax { fill: #656c76; }
  }
"""


def picture(rows, data):
    """Bars of each row's shares of its roof, and weft's goal as a stroke."""
    rows = [r for r in rows if not r["error"]]
    kinds = [("weft", "weft", "weft"), ("lifted", "lifted", "PyTorch, MKL lifted"), ("plain", "plain", "PyTorch as installed"), ("JAX", "jax", "JAX")]
    shares = [bar(r, kind)["share"] for r in rows for kind in r["bars"]] + [1.0]
    top = -(-max(shares) // 0.25) * 0.25
    left, width, right, thick, gap = 230, 480, 190, 15, 14
    x = lambda value: left + width * value / top
    y, body = 78, []
    for row in rows:
        bars = [(css, row["bars"][kind], bar(row, kind)) for kind, css, _ in kinds if kind in row["bars"]]
        begin, height = y, thick * len(bars)
        middle = begin + height / 2
        what = "of the read bandwidth" if row["of"] == "read_bandwidth" else ""
        body.append(f'<text x="{left - 10}" y="{middle + (4 if not what else -3):.1f}" text-anchor="end">{escape(row["name"])}</text>')
        if what:
            body.append(f'<text class="small" x="{left - 10}" y="{middle + 11:.1f}" text-anchor="end">{what}</text>')
        for css, name, b in bars:
            body.append(f'<rect class="{css}" x="{left}" y="{y + 1}" width="{max(1, x(b["share"]) - left):.1f}" height="{thick - 2}" rx="2"><title>{escape(name)}</title></rect>')
            end = max(x(b["share"]), x(row["target"]) if row["target"] and css == "weft" else 0)
            body.append(f'<text class="small" x="{end + 6:.1f}" y="{y + thick - 4}">{percent(b["share"])}, {b["tokens_per_s"]:,.0f} tokens/s</text>')
            y += thick
        if row["target"]:
            body.append(f'<line class="goal" x1="{x(row["target"]):.1f}" x2="{x(row["target"]):.1f}" y1="{begin - 1}" y2="{begin + thick + 1}"/>')
        y += gap
    grid = []
    for i in range(int(round(top / 0.25)) + 1):
        at = x(i * 0.25)
        grid.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="70" y2="{y}"/><text class="small" x="{at:.1f}" y="{y + 15}" text-anchor="middle">{i * 25} %</text>')
    legend, at = [], left
    for kind, css, label in kinds:
        if any(kind in r["bars"] for r in rows):
            legend.append(f'<rect class="{css}" x="{at}" y="42" width="12" height="12" rx="2"/><text x="{at + 18}" y="53">{label}</text>')
            at += 32 + 7 * len(label)
    if any(r["target"] for r in rows):
        legend.append(f'<line class="goal" x1="{at + 6}" x2="{at + 6}" y1="40" y2="56"/><text x="{at + 14}" y="53">goal</text>')
    total = left + width + right
    title = f"Share of the FMA roof, {data['processor']['name']}, {data['threads']} threads"
    size = f'viewBox="0 0 {total} {y + 26}" width="{total}" height="{y + 26}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">\n<style>{STYLE}</style>\n<rect class="ground" width="100%" height="100%"/>\n'
            f'<text class="title" x="20" y="26">{escape(title)}</text>\n' + "\n".join(legend + grid + body) + "\n</svg>\n")


def write(out, data):
    lines = [line for line in LINES if line.name in data["lines"]]
    rows = [row for line in lines for row in rows_of(line, data["lines"][line.name], data["lines"])]
    data["engines"] = sorted({r["engine"] for l in data["lines"].values() for p in l["programs"].values() for r in p["runs"] if r})
    for name, text in [("cpu.json", json.dumps({**data, "rows": rows}, indent=1)), ("cpu.md", markdown(rows, data)), ("cpu.svg", picture(rows, data))]:
        (out / (name + ".new")).write_text(text, encoding="utf-8")
        (out / (name + ".new")).replace(out / name)
    return rows


def show(rows):
    for row in rows:
        if row["error"]:
            print(f"{row['name']}: {row['error']}")
            continue
        of = "FMA roof" if row["of"] == "fma_roof" else "read bandwidth"
        for name, p in row["programs"].items():
            ahead = f"; weft is {p['ratio']:.2f} x" if name != "weft" else ""
            print(f"{row['name']}, {name}: {p['tokens_per_s']:,.0f} tokens/s, {percent(p['share'], 1)} of the {of}, "
                  f"peak {p['peak_rss'] * 1e-9:.2f} GB, {p['faults']:,.1f} faults a step{ahead}")
        for c in row["checks"]:
            print(f"  {'met' if c['met'] else 'NOT MET'}: {c['text']} ({c['value']})")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("venv", help="the folder that make_venv.sh made")
    parser.add_argument("--lines", help="groups, ids or names with commas between them: C1,C5,tiny (default: all but tiny)")
    parser.add_argument("--steps", type=int, default=5, help="timed in a run, at least")
    parser.add_argument("--seconds", type=float, default=3, help="timed in a run, at least")
    parser.add_argument("--rounds", type=int, default=2, help="how often all take their turn")
    parser.add_argument("--peers", help="only those whose names hold one of these: compiled,jax")
    parser.add_argument("--steady", type=float, default=0.05, help="how far the roofs around a run may differ, relative")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weft", default=str(ROOT / "build/benchmarks/bench_models"), help="the program bench_models")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/cpu")
    args = parser.parse_args()
    args.python = str(pathlib.Path(args.venv) / "bin/python")
    for path, hint in [(args.python, "bash benchmarks/peers/make_venv.sh FOLDER makes it"), (args.weft, "build with -DWEFT_BUILD_BENCHMARKS=ON")]:
        if not os.access(path, os.X_OK):
            parser.error(f"expected a program {path}: {hint}")
    wanted = [w.strip() for w in args.lines.split(",")] if args.lines else sorted({l.group for l in LINES} - {"tiny"})
    for w in wanted:
        if not any(w in (l.group, l.id, l.name) for l in LINES):
            parser.error(f"no line {w}; there are {', '.join(sorted({l.group for l in LINES}))} and " + ", ".join(l.name for l in LINES))
    machine = processor()
    lines = [l for l in LINES if {l.group, l.id, l.name} & set(wanted)]
    for line in [l for l in lines if l.dtype == "bf16" and not machine["bf16"] and l.group != "tiny"]:
        print(f"{line.name}: left out, the processor has neither AVX512_BF16 nor AMX")
        lines.remove(line)
    keep_to_cores(args.threads)
    args.jax = subprocess.run([args.python, "-c", "import jax"], stderr=subprocess.DEVNULL).returncode == 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    args.out.mkdir(parents=True, exist_ok=True)
    data = {"processor": machine, "threads": args.threads, "engines": [], "lines": {}}
    try:
        before = json.loads((args.out / "cpu.json").read_text(encoding="utf-8"))
        if before["processor"] == machine and before["threads"] == args.threads:
            data["lines"] = before["lines"]
    except (OSError, ValueError, KeyError):
        pass  # none yet, or of another make
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        lift = folder / "lift.so"
        (folder / "lift.c").write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
        subprocess.run([os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-o", lift, folder / "lift.c"], check=True)
        for line in lines:
            print(f"{line.group}: {line.name}", flush=True)
            result = measure(line, args, folder, lift, machine)
            data["lines"][line.name] = result
            rows = write(args.out, data)
            show([r for r in rows if r["name"].removesuffix(" prefill").removesuffix(" decode") == line.name])
            failed |= any(p["error"] for p in result["programs"].values())
    print(f"written: {args.out / 'cpu.json'}, cpu.md, cpu.svg")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
