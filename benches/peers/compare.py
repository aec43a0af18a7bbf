"""One update by cryo and by a plain PEFT loop, side by side on this machine.

Pairs of runs follow each other, so that a change of clock speed or load meets both; the figure
of a pair is the ratio within it, and the median of the pairs is printed.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def run(command, cwd):
    """Runs a command; returns its stdout, wall seconds, CPU seconds and peak memory."""
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{command[0]} failed with {os.waitstatus_to_exitcode(status)}")
    return {
        "out": out,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def cryo(binary):
    """The `lora` task alone in a fresh project; the baseline is learned before the clock runs."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ["cryo.toml", "pipelines", "data"]:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, pathlib.Path(folder) / name)
        subprocess.run([binary, "meter", "--relearn", "--json"], cwd=folder, check=True, capture_output=True)
        command = [binary, "apply", "pipelines/sentiment.toml", "--task", "sentiment-delta", "--json"]
        done = run(command, folder)
        receipt = json.loads(done["out"])["tasks"][0]["receipt"]
        done["delta"] = float(receipt["delta"])
        done["steps"] = receipt["train"]["steps"]
        return done


def peer(model, threads):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(HERE / "peft_update.py"), "--model", str(model),
            "--train", str(ROOT / "data/reviews-train.csv"), "--gate", str(ROOT / "data/reviews-gate.csv"),
            "--threads", str(threads), "--out", folder,
        ]
        done = run(command, folder)
        figures = json.loads(done["out"])
        done["delta"] = figures["delta"]
        done["steps"] = 60
        return done


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cryo", required=True, help="the built binary")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    model = cache / "cryoflux/models" / MODEL
    if not model.is_dir():
        sys.exit("the model is not in the cache; run `cryo model pull minilm` first")

    pairs = []
    for number in range(args.pairs):
        pairs.append((cryo(args.cryo), peer(model, args.threads)))
        print(f"pair {number + 1} of {args.pairs} done", file=sys.stderr)

    print(f"one update, 60 steps of 32, gate of 2000, {args.threads} threads, median of {args.pairs} pairs")
    print(f"{'':24}{'cryo':>10}{'peft':>10}{'peft / cryo':>14}")
    for name, unit in [("seconds", "s"), ("cpu_seconds", "s"), ("peak_mib", "MiB"), ("delta", "nats")]:
        ours = statistics.median(pair[0][name] for pair in pairs)
        theirs = statistics.median(pair[1][name] for pair in pairs)
        ratio = statistics.median(pair[1][name] / pair[0][name] for pair in pairs)
        digits = 3 if name == "delta" else 1
        print(f"{name + ' (' + unit + ')':24}{ours:>10.{digits}f}{theirs:>10.{digits}f}{ratio:>14.2f}")
    gained = [pair[side]["delta"] / pair[side]["cpu_seconds"] for pair in pairs for side in (0, 1)]
    ours, theirs = statistics.median(gained[0::2]), statistics.median(gained[1::2])
    print(f"{'delta per CPU-second':24}{ours:>10.5f}{theirs:>10.5f}{theirs / ours:>14.2f}")


if __name__ == "__main__":
    main()
