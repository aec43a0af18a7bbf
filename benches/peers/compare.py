"""cryo beside what people use otherwise, on this machine.

Three things are compared: how many samples a second are trained on, evaluated and embedded; one
whole update by the same recipe; and cryo's own recipe, the one that ships, where it ends with the
peer's loss or a lower one.

Runs follow each other in pairs, cryo then peer, so that a change of clock speed or load meets
both. The figure is the ratio within a pair; the median of the pairs is printed. Every pair has a
seed of its own, the first one that of the shipped pipeline.
"""

import argparse
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PIPELINE = "pipelines/sentiment.toml"
TASK = "sentiment-delta"
SEED, STEPS = 42, 60
# What peft_update.py does.
SAME_RECIPE = {
    "max_steps": str(STEPS), "batch_size": "32", "learning_rate": "5e-4",
    "decay": '"constant"', "layers": '"all"',
}
REJECTED = 10  # cryo's exit code for an update that the gate rejected

# What is compared: name, unit, cryo's figure, the peer's figure, whether more is better, target.
ROWS = [
    ("training", "samples/s", "train", "train", True, 2.5),
    ("evaluation", "samples/s", "eval", "eval", True, 2.5),
    ("evaluation, peer sorted", "samples/s", "eval", "eval_sorted", True, 2.5),
    ("embedding, sentence-transf.", "texts/s", "embed", "embed_st", True, 2.0),
    ("embedding, ONNX Runtime", "texts/s", "embed", "embed_ort", True, 1.0),
    ("same recipe: update", "s", "seconds", "seconds", False, 6.0),
    ("same recipe: processor", "CPU-s", "cpu_seconds", "cpu_seconds", False, None),
    ("same recipe: peak memory", "MiB", "peak_mib", "peak_mib", False, 2.0),
    ("same recipe: gain per CPU-s", "mnats", "gain", "gain", True, None),
    ("same loss: update", "s", "shipped_seconds", "seconds", False, 6.0),
    ("same loss: processor", "CPU-s", "shipped_cpu_seconds", "cpu_seconds", False, None),
    ("same loss: peak memory", "MiB", "shipped_peak_mib", "peak_mib", False, 2.0),
    ("same loss: gain per CPU-s", "mnats", "shipped_gain", "gain", True, 4.0),
]


def run(command, cwd=ROOT, environment=None, accepted=(0,)):
    """Runs a command; returns its stdout, wall seconds, CPU-seconds and peak memory."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=errors
        )
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)  # Popen need not look for it
        if child.returncode not in accepted:
            errors.seek(0)
            sys.stderr.write(errors.read().decode(errors="replace")[-2000:])
            sys.exit(f"{' '.join(map(str, command))}\nfailed with {child.returncode}")
    return {
        "out": json.loads(out),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def set_key(text, key, value, section):
    """Gives a key of a TOML text another value, or adds it under the section's header."""
    changed, count = re.subn(rf"^({key}\s*=\s*)[^\s#]+", rf"\g<1>{value}", text, flags=re.MULTILINE)
    if count == 0:
        changed, count = re.subn(rf"^(\[{re.escape(section)}\])$", rf"\1\n{key} = {value}", text, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"{PIPELINE} has `{key}` {count} times, not once")
    return changed


def cryo_update(binary, threads, seed, recipe):
    """The `lora` task alone, in a fresh project with another seed and other settings."""
    with tempfile.TemporaryDirectory() as folder:
        project = pathlib.Path(folder)
        shutil.copy(ROOT / "cryo.toml", project)
        shutil.copytree(ROOT / "data", project / "data")
        (project / "pipelines").mkdir()
        text = (ROOT / PIPELINE).read_text(encoding="utf-8")
        text = set_key(text, "seed", seed, "pipeline")
        for key, value in recipe.items():
            text = set_key(text, key, value, f"task.{TASK}.lora")
        (project / PIPELINE).write_text(text, encoding="utf-8")
        environment = os.environ | {
            "CRYO_DEVICE": "cpu",
            "CRYO_THREADS": str(threads),
            # Joules are not compared, and an idle baseline cannot be learned on a busy machine.
            "CRYO_METER__IDLE_WATTS": "0",
            # A person's own settings would compare something else.
            "XDG_CONFIG_HOME": folder,
        }
        done = run(
            [binary, "apply", PIPELINE, "--task", TASK, "--json"],
            folder, environment, accepted=(0, REJECTED),
        )
        receipt = done["out"]["tasks"][0]["receipt"]
        if receipt["train"]["stopped"] != "max-steps":
            sys.exit(f"cryo did not finish its steps: {receipt['train']['stopped']}")
        losses = None
        if model := receipt.get("new_model_hash"):  # a rejected update leaves no losses
            name = model.removeprefix("sha256:")
            [kept] = (project / ".cryo/losses").glob(f"{name}-*.json")
            losses = json.loads(kept.read_text(encoding="utf-8"))
    return summed_up(done, float(receipt["delta"]), float(receipt["new_loss"]), losses)


def peer_update(model, threads, seed, steps):
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(folder) / "losses.json"
        done = run([
            sys.executable, str(HERE / "peft_update.py"), "--model", str(model),
            "--train", str(ROOT / "data/reviews-train.csv"),
            "--gate", str(ROOT / "data/reviews-gate.csv"),
            "--threads", str(threads), "--seed", str(seed), "--steps", str(steps),
            "--out", str(pathlib.Path(folder) / "adapter"), "--losses", str(kept),
        ])
        losses = json.loads(kept.read_text(encoding="utf-8"))
    return summed_up(done, done["out"]["delta"], done["out"]["new_loss"], losses)


def summed_up(done, delta, loss, losses):
    # The receipt holds nine digits, so this also shows that the losses are those of this model.
    if losses and abs(statistics.fmean(losses) - loss) > 1e-6:
        sys.exit(f"the losses have a mean of {statistics.fmean(losses)}, not {loss}")
    return {
        "seconds": done["seconds"],
        "cpu_seconds": done["cpu_seconds"],
        "peak_mib": done["peak_mib"],
        "delta": delta,
        "loss": loss,
        "losses": losses,
        "gain": 1000 * delta / done["cpu_seconds"],
    }


def cryo_shipped(mark, **settings):
    """The recipe that ships, where its gate loss is at the mark or below."""
    done = cryo_update(recipe={}, **settings)
    found = {"shipped_loss": done["loss"], "shipped_delta": done["delta"]}
    if done["loss"] <= mark:
        found |= {f"shipped_{key}": done[key] for key in ["seconds", "cpu_seconds", "peak_mib", "gain"]}
    return found


def cryo_rates(binary, model, threads):
    command = [binary, "--model", model, "--data", ROOT / "data", "--threads", threads]
    found = run(list(map(str, command)))["out"]
    return {
        "train": found["train_samples_per_second"],
        "eval": found["eval_samples_per_second"],
        "embed": found["embed_texts_per_second"],
    }


def peer_rates(model, threads):
    common = ["--model", str(model), "--threads", str(threads)]
    train, gate = str(ROOT / "data/reviews-train.csv"), str(ROOT / "data/reviews-gate.csv")
    script = str(HERE / "peft_rates.py")
    found = run([sys.executable, script, *common, "--train", train, "--gate", gate])["out"]
    script = str(HERE / "embed_rates.py")
    embedded = run([sys.executable, script, *common, "--texts", train])["out"]
    return {
        "train": found["train_samples_per_second"],
        "eval": found["eval_samples_per_second"],
        "eval_sorted": found["eval_sorted_samples_per_second"],
        "embed_st": embedded["sentence_transformers_texts_per_second"],
        "embed_ort": embedded["onnxruntime_texts_per_second"],
    }


def pair_of_runs(args, model, seed):
    cryo = cryo_rates(args.rates, model, args.threads)
    peer = peer_rates(model, args.threads)
    settings = {"binary": args.cryo, "threads": args.threads, "seed": seed}
    update = cryo_update(recipe=SAME_RECIPE, **settings)
    peer |= peer_update(model, args.threads, seed, STEPS)
    shipped = cryo_shipped(peer["loss"], **settings)
    return cryo | update | shipped, peer


def compared(pairs):
    """The rows of the table: medians of both sides, and the median of the ratios."""
    rows = []
    for name, unit, ours, theirs, more_is_better, target in ROWS:
        row = {"name": name, "unit": unit, "target": target}
        known = [(cryo[ours], peer[theirs]) for cryo, peer in pairs if ours in cryo]
        if len(known) == len(pairs):
            ratios = [a / b if more_is_better else b / a for a, b in known]
            row["cryo"] = statistics.median(a for a, _ in known)
            row["peer"] = statistics.median(b for _, b in known)
            row["times_better"] = statistics.median(ratios)
            row["ratios"] = ratios
        else:  # a mark that was not reached in every pair has no median
            row |= {"cryo": None, "peer": None, "times_better": None, "ratios": None}
        better = row["times_better"]
        row["met"] = None if target is None else better is not None and better >= target
        rows.append(row)
    return rows


def holdout(pairs):
    """Both deltas at equal steps, and how sure their difference is.

    The difference is that of the losses after the update, so the peer's random head, which starts
    a little off ln(2), is not in it. A row's difference is its mean over the pairs. The standard
    error is that of the mean over the rows: it covers the luck of the rows. That of the seeds shows
    in the pairs' own differences.
    """
    result = {
        "cryo": statistics.fmean(cryo["delta"] for cryo, _ in pairs),
        "peer": statistics.fmean(peer["delta"] for _, peer in pairs),
        "shipped": statistics.fmean(cryo["shipped_delta"] for cryo, _ in pairs),
        "by_pair": [peer["loss"] - cryo["loss"] for cryo, peer in pairs],
        "difference": None,
        "standard_error": None,
    }
    if any(cryo["losses"] is None for cryo, _ in pairs):  # the gate rejected one: none are kept
        return result
    by_row = [
        statistics.fmean(row)
        for row in zip(*(
            [b - a for a, b in zip(cryo["losses"], peer["losses"], strict=True)]
            for cryo, peer in pairs
        ))
    ]
    result["difference"] = statistics.fmean(by_row)
    result["standard_error"] = statistics.stdev(by_row) / math.sqrt(len(by_row))
    return result


def table(rows, deltas, args):
    lines = [
        f"threads: {args.threads}; pairs of runs: {args.pairs}, medians below; "
        f"same recipe: {STEPS} steps of 32; a gate of 2000",
        "",
        f"{'':29}{'unit':<11}{'cryo':>9}{'peer':>9}{'better by':>11}{'target':>8}",
    ]
    for row in rows:
        start = f"{row['name']:29}{row['unit']:<11}"
        target = "" if row["target"] is None else f"{row['target']:.1f}"
        met = {None: "", True: "  met", False: "  missed"}[row["met"]]
        if row["cryo"] is None:
            lines.append(f"{start}{'not reached':>29}{target:>8}{met}")
            continue
        digits = 3 if row["unit"] == "mnats" else 1
        lines.append(
            f"{start}{row['cryo']:>9.{digits}f}{row['peer']:>9.{digits}f}"
            f"{row['times_better']:>11.2f}{target:>8}{met}"
        )
    start = f"{'holdout delta, equal steps':29}{'nats':<11}"
    lines.append(f"{start}{deltas['cryo']:>9.4f}{deltas['peer']:>9.4f}")
    if deltas["difference"] is None:
        lines.append("  no standard error: the gate rejected an update of cryo")
    else:
        lines.append(
            f"  cryo less peer {deltas['difference']:+.4f} +/- {deltas['standard_error']:.4f}"
            f" (paired over the gate rows)"
        )
    start = f"{'holdout delta, shipped':29}{'nats':<11}"
    lines.append(f"{start}{deltas['shipped']:>9.4f}")
    return "\n".join(line.rstrip() for line in lines)


def without_losses(side):
    return {key: value for key, value in side.items() if key != "losses"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cryo", required=True, help="the built binary")
    parser.add_argument("--rates", required=True, help="the built bench that prints cryo's rates")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args()
    args.cryo, args.rates = os.path.abspath(args.cryo), os.path.abspath(args.rates)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    model = next((cache / "cryoflux/models").glob(f"{MODEL}-*"), None)
    if model is None:
        sys.exit("the model is not in the cache; run `cryo model pull minilm` first")

    pairs = []
    for number in range(args.pairs):
        pairs.append(pair_of_runs(args, model, SEED + number))
        print(f"pair {number + 1} of {args.pairs} done", file=sys.stderr)
    rows, deltas = compared(pairs), holdout(pairs)
    if args.json:
        print(json.dumps({
            "threads": args.threads,
            "rows": rows,
            "holdout_delta": deltas,
            "pairs": [{"cryo": without_losses(a), "peer": without_losses(b)} for a, b in pairs],
        }))
    else:
        print(table(rows, deltas, args))


if __name__ == "__main__":
    main()
