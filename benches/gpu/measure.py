"""Everything that a machine with a card is needed for, part by part; `run.sh` says more.

Every part has a limit of its own and a line in the report. What fails is said and left, and the
report is written after every part, so that a run that is cut short has told what it knew.
"""

import argparse
import datetime
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time

import machine as here
import project
import report
from card import Card, NoCard
from runner import Failed, Runner, Skipped, unpack

STEPS_DETERMINISM, SEED = 20, 42
BATCHES = [32, 64, 128, 256, 512]
MODEL_FILE = "model.safetensors"

class Bench:
    def __init__(self, args, pack, work):
        self.args, self.pack, self.work = args, pack, work
        self.on_card = args.device == "cuda"
        # Autotune is of interest in the precision that people will use on a card.
        self.precision = "bf16" if self.on_card else "f32"
        self.report = {
            "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "device": args.device,
            "packed": read_json(pack / "pack.json"),
            "settings": here.settings(),
            "parts": [],
        }
        self.card, self.no_card = None, None
        if self.on_card:
            try:
                self.card = Card()
            except NoCard as error:
                self.no_card = str(error)
        self.runner = Runner(work, args.out / "logs.txt", self.card)
        self.cache = work / "cache"
        self.links = []
        os.environ.update({
            "XDG_CACHE_HOME": str(self.cache),
            # A person's own settings would measure something else.
            "XDG_CONFIG_HOME": str(work / "config"),
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            # The driver keeps what it compiles for weeks; a first run has to be a first run.
            "CUDA_CACHE_PATH": str(self.cache / "driver"),
        })

    def prepare(self):
        self.cache.mkdir()
        self.report["libdevice"], toolkit = here.libdevice(self.work / "toolkit")
        if toolkit:
            os.environ["CUDA_PATH"] = str(toolkit)
        try:
            self.give_test_paths()
        except (OSError, ValueError, AttributeError) as error:
            # The parts that need them will say so.
            self.runner.note(f"give_test_paths: {error}")

    def give_test_paths(self):
        """The tests look for fixtures and program where they were built."""
        packed = self.report["packed"]
        for key, there in [("source", self.pack), ("program", self.pack / "bin/cryo")]:
            wanted = pathlib.Path(packed.get(key) or "/")
            if wanted.exists() or not (self.pack / "bin/it").is_file():
                continue
            top = wanted.parent
            while not top.exists():
                top = top.parent
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.symlink_to(there)
            self.links.append((wanted, top))

    def clean(self):
        for link, top in reversed(self.links):
            link.unlink()
            folder = link.parent
            while folder != top:
                try:
                    folder.rmdir()
                except OSError:  # something else is in it by now
                    break
                folder = folder.parent

    def binary(self, name):
        path = self.pack / "bin" / name
        if not path.is_file():
            raise Skipped(f"bin/{name} is not in the folder")
        return path

    def peer(self, name):
        """The peer's script, where this Python can run it."""
        script = self.pack / "peers" / name
        if not script.is_file():
            raise Skipped(f"peers/{name} is not in the folder")
        found = self.report.get("machine", {}).get("versions") or {}
        if found.get("missing") or not found:
            raise Skipped(found.get("missing") or "no torch and peft were found")
        if self.on_card and not found.get("cuda"):
            raise Skipped(f"torch {found['torch']} sees no card")
        return script

    def data(self, name):
        return self.pack / "data" / f"reviews-{name}.csv"

    # The parts

    def machine(self, limit):
        result = here.processor()
        if self.on_card:
            result["card"] = here.driver()
            result["counter"] = self.no_card or "energy counter"
            if self.card:
                result["idle_watts"] = round(self.card.watts(3.0), 2)
        try:
            said = self.runner.run([self.binary("cryo"), "--version"], 20).out.strip()
            result["cryo"] = said
        except (Failed, Skipped) as error:
            result["cryo"] = f"unknown: {error}"
        self.report["machine"] = result  # what follows may take too long
        result["versions"] = self.runner.run([sys.executable, "-c", here.VERSIONS], limit).json()
        return result

    def update(self, name, steps, precision, limit):
        """One update of cryo in a project of its own, the caches as they are.

        Without a number of steps it is the recipe that ships.
        """
        cryo = self.binary("cryo")
        if not (self.pack / "model" / MODEL_FILE).is_file():
            raise Skipped("the model is not in the folder")
        folder = self.work / name
        recipe = {} if steps is None else {**project.SAME_RECIPE, "max_steps": steps}
        project.make(folder, self.pack, recipe, SEED, precision)
        ran = self.runner.run(
            [cryo, "apply", project.PIPELINE, "--task", project.TASK, "--json"],
            limit,
            project.environment(self.args.device),
            folder,
            accepted=(0, project.REJECTED),
        )
        try:
            result = project.outcome(ran.out, folder)
        except ValueError as error:
            raise Failed(str(error)) from None
        if steps is not None and result["steps"] != steps:
            raise Failed(f"{result['steps']} steps, not {steps}: {result['reason']}")
        return self.with_cost(result, ran)

    def with_cost(self, result, ran):
        """With what it cost, and the gain per joule of the card."""
        result = {**result, **ran.cost}
        joules, delta = result["card_joules"], result["delta"]
        result["delta_per_card_joule"] = delta / joules if joules and delta is not None else None
        idle = self.report.get("machine", {}).get("idle_watts")
        if joules and idle is not None:
            result["card_joules_above_idle"] = joules - idle * result["card_seconds"]
        return result

    def update_cold(self, limit):
        result = self.update("cold", self.args.steps, self.precision, limit)
        result["autotune_cache"] = self.autotune_cache()
        return result

    def update_warm(self, limit):
        return self.update("warm", self.args.steps, self.precision, limit)

    def update_shipped(self, limit):
        return self.update("shipped", None, self.precision, limit)

    def autotune_cache(self):
        """Files that cubecl left, wherever it puts them, so that the next run need not tune."""
        found = [*self.cache.glob("cubecl/**/*"), *self.cache.glob("cryoflux/**/*.db*")]
        found += [*self.work.glob("cold/**/environment/*"), *self.work.glob("cold/**/*.db")]
        files = [path for path in found if path.is_file()]
        return {
            "files": sorted(str(path.relative_to(self.work)) for path in files)[:8],
            "bytes": sum(path.stat().st_size for path in files),
        }

    def peer_update(self, limit):
        ran = self.runner.run(
            [
                sys.executable, self.peer("peft_update.py"),
                "--model", self.pack / "model", "--train", self.data("train"),
                "--gate", self.data("gate"), "--device", self.args.device,
                "--precision", self.precision, "--steps", self.args.steps, "--seed", SEED,
                "--out", self.work / "peer-adapter",
            ],
            limit,
        )
        said = ran.json()
        wanted = ["steps", "base_loss", "new_loss", "delta", "accuracy", "peak_device_bytes"]
        result = {key: said.get(key) for key in wanted}
        result["phases"] = said.get("seconds")
        return self.with_cost(result, ran)

    def determinism(self, precision, limit):
        begun = time.perf_counter()
        runs = []
        for name in ["first", "second"]:
            left = limit - (time.perf_counter() - begun)
            runs.append(
                self.update(f"{name}-{precision}", STEPS_DETERMINISM, precision, max(left, 1))
            )
        hashes = [run["adapter"] for run in runs]
        result = {
            "precision": precision,
            "adapters": hashes,
            "new_losses": [run["new_loss"] for run in runs],
            "seconds": [run["seconds"] for run in runs],
        }
        if None in hashes:
            raise Failed("a receipt names no adapter")
        if hashes[0] == hashes[1]:
            return {**result, "equal": True}
        return {**result, **project.apart(*(run["adapter_file"] for run in runs))}

    def card_tests(self, limit):
        if not self.on_card:
            raise Skipped("these tests need a card")
        ran = self.runner.run(
            [self.binary("it"), "--ignored", "card", "--nocapture", "--test-threads=1"],
            limit,
            {"CRYO_TEST_MODEL": str(self.pack / "model")},
            accepted=(0, 101),
        )
        text = ran.out + "\n" + ran.errors
        # With one thread the name of a test stands before what it prints.
        lines = re.findall(r"(?:^|\s)card: (.+)$", text, flags=re.MULTILINE)
        summary = re.search(r"^test result: .*?(\d+) passed; (\d+) failed", text, re.MULTILINE)
        if summary is None:
            raise Failed("the tests did not come to an end")
        passed, failed = map(int, summary.groups())
        names = re.findall(r"^    (\S+)$", text.split("failures:")[-1], flags=re.MULTILINE)
        result = {
            "passed": passed, "failed": failed, "figures": lines,
            "failures": names if failed else [], "seconds": ran.cost["seconds"],
        }
        if passed + failed == 0:
            raise Failed("no test of that name is in bin/it")
        self.report["card_tests"] = result
        if failed:
            raise Failed(f"{failed} of {passed + failed} failed: {' '.join(result['failures'])}")
        return result

    def rates(self, device, precision, batches, seconds, limit):
        """cryo's samples per second; every size twice, so that the second is not autotune's."""
        if not (self.pack / "model" / MODEL_FILE).is_file():
            raise Skipped("the model is not in the folder")
        twice = [size for size in batches for _ in range(2)] if device != "cpu" else batches
        ran = self.runner.run(
            [
                self.binary("rates"), "--model", self.pack / "model", "--data", self.pack / "data",
                "--device", device, "--precision", precision, "--seconds", seconds,
                "--batch", ",".join(map(str, twice)),
            ],
            limit,
        )
        said = ran.json()
        by_batch = {}
        for size, rate in said["train_by_batch_size"]:
            by_batch[str(size)] = max(rate, by_batch.get(str(size), 0.0))
        best = max(by_batch, key=by_batch.get)
        return {
            "device": said["device"], "backend": said["backend"], "precision": precision,
            "threads": said["threads"], "train_by_batch": by_batch,
            "train": by_batch[best], "train_batch": int(best),
            "eval": said["eval_samples_per_second"], "embed": said["embed_texts_per_second"],
            "seconds": ran.cost["seconds"], "card_peak_mib": ran.cost["card_peak_mib"],
        }

    def card_rates(self, precision, limit):
        if not self.on_card:
            raise Skipped("these rates need a card")
        begun = time.perf_counter()
        try:
            return self.rates("cuda:0", precision, BATCHES, 4, limit * 0.75)
        except Failed as error:
            left = limit - (time.perf_counter() - begun)
            if "not done" not in str(error) or left < 15:
                raise
            # The sizes that are likely to be best, before there is nothing at all.
            result = self.rates("cuda:0", precision, [256], 3, left)
            return {**result, "note": f"all sizes: {error}; then size 256 alone"}

    def cpu_rates(self, limit):
        return self.rates("cpu", "f32", [32], 4, limit)

    def peer_rates(self, device, precision, batches, tokenised, limit):
        if device == "cuda" and not self.on_card:
            raise Skipped("these rates need a card")
        command = [
            sys.executable, self.peer("peft_rates.py"), "--model", self.pack / "model",
            "--train", self.data("train"), "--gate", self.data("gate"), "--device", device,
            "--precision", precision, "--seconds", 2, "--steps", 10, "--batch", *batches,
        ]
        ran = self.runner.run(command + (["--pretokenised"] if tokenised else []), limit)
        said = ran.json()
        return {
            "device": device, "precision": precision, "pretokenised": tokenised,
            "train_by_batch": {
                size: found["train"]["samples_per_second"]
                for size, found in said["by_batch"].items()
            },
            "train": said["train_samples_per_second"], "train_batch": said["train_batch"],
            "eval": said["eval_samples_per_second"],
            "eval_sorted": said["eval_sorted_samples_per_second"],
            "train_joules_per_sample": said["train_joules_per_sample"],
            "seconds": ran.cost["seconds"],
        }

    def parts(self):
        """Key, title, seconds at most, seconds that are kept for it, what to do.

        In the order of their worth: the updates first, since the very first run has to meet
        empty caches.
        """
        cuda, other = "cuda", "f32"
        return [
            ("machine", "machine and versions", 80, 10, self.machine),
            ("update_cold", "update, first run", 160, 40, self.update_cold),
            ("update_warm", "update, second run", 100, 20, self.update_warm),
            ("peer_update", "update, peer", 100, 25, self.peer_update),
            ("update_shipped", "update, the recipe that ships", 60, 15, self.update_shipped),
            ("determinism", f"determinism, {self.precision}", 110, 25,
             lambda limit: self.determinism(self.precision, limit)),
            ("card_tests", "device tests", 120, 25, self.card_tests),
            ("rates_bf16", "rates, bf16", 150, 40,
             lambda limit: self.card_rates("bf16", limit)),
            ("peer_rates_bf16", "rates, bf16, peer", 80, 35,
             lambda limit: self.peer_rates(cuda, "bf16", BATCHES, False, limit)),
            ("rates_f32", "rates, f32", 120, 30,
             lambda limit: self.card_rates("f32", limit)),
            ("peer_rates_f32", "rates, f32, peer", 70, 30,
             lambda limit: self.peer_rates(cuda, other, BATCHES, False, limit)),
            ("peer_rates_ready", "rates, bf16, peer tokenised", 70, 20,
             lambda limit: self.peer_rates(cuda, "bf16", BATCHES, True, limit)),
            ("rates_cpu", "rates, processor", 50, 15, self.cpu_rates),
            ("peer_rates_cpu", "rates, processor, peer", 60, 20,
             lambda limit: self.peer_rates("cpu", other, [32], False, limit)),
            ("determinism_f32", "determinism, f32", 60, 20, self.determinism_f32),
        ]

    def determinism_f32(self, limit):
        if not self.on_card:
            raise Skipped("done above")
        return self.determinism("f32", limit)

    def work_through(self, deadline):
        parts = self.parts()
        known = [key for key, *_ in parts]
        if unknown := set(self.args.only or []) - set(known):
            cannot(f"no part is called {' '.join(sorted(unknown))}; there are {' '.join(known)}")
        # Without the first part nobody knows whether the peer can run.
        wanted = ["machine", *(self.args.only or known)]
        parts = [part for part in parts if part[0] in wanted]
        for at, (key, title, most, _, work) in enumerate(parts):
            kept = sum(least for _, _, _, least, _ in parts[at + 1 :])
            if not self.on_card:  # nothing here is made for a processor's pace
                most, kept = 4 * most, 0
            begun = time.monotonic()
            # What comes later keeps its least, unless nothing would be left for this one.
            limit = min(most, max(deadline - begun - kept, parts[at][3]))
            limit = min(limit, deadline - begun)
            line = {"key": key, "title": title, "limit": round(max(limit, 0)), "note": ""}
            try:
                if limit < 5:
                    raise Skipped("no time was left")
                self.report[key] = work(limit)
                line["status"] = "done"
            except (Failed, Skipped) as error:
                line["status"] = "skipped" if isinstance(error, Skipped) else "failed"
                line["note"] = str(error)
            except KeyboardInterrupt:
                line |= {"status": "failed", "note": "told to end", "seconds": 0.0}
                self.report["parts"].append(line)
                raise
            except Exception as error:  # a fault in here must not cost the other parts
                line["status"], line["note"] = "failed", f"{type(error).__name__}: {error}"
            line["seconds"] = round(time.monotonic() - begun, 1)
            self.report["parts"].append(line)
            self.write()
            note = f": {line['note']}" if line["note"] else ""
            print(
                f"{line['status']:8}{line['seconds']:7.1f} s  {title}{note}",
                file=sys.stderr, flush=True,
            )

    def write(self):
        (self.args.out / "report.json").write_text(
            json.dumps(self.report, indent=1) + "\n", encoding="utf-8"
        )
        (self.args.out / "report.txt").write_text(report.text(self.report), encoding="utf-8")


def cannot(text):
    print(f"run.sh: {text}", file=sys.stderr)
    sys.exit(2)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def parse():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="what pack.sh made, or its archives")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("card-report"),
        help="for report.txt, report.json and logs.txt; card-report unless said",
    )
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda",
        help="cpu tries these scripts out where there is no card",
    )
    parser.add_argument(
        "--minutes", type=float, default=9.4, help="for everything; 9.4 unless said"
    )
    parser.add_argument("--steps", type=int, default=200, help="of the whole update")
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts, by key")
    return parser.parse_args()


def main():
    deadline = time.monotonic()
    args = parse()
    deadline += args.minutes * 60
    args.folder, args.out = args.folder.resolve(), args.out.resolve()
    if not args.folder.is_dir():
        cannot(f"{args.folder} is no folder")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "logs.txt").write_text("", encoding="utf-8")
    # Outside of any checkout: below one cubecl would keep its cache in the checkout's target.
    work = pathlib.Path(tempfile.mkdtemp(prefix="card-"))
    try:
        code = measure(args, work, deadline)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(code)


def measure(args, work, deadline):
    pack = args.folder
    if not (pack / "pack.json").is_file():
        print("unpacking", file=sys.stderr, flush=True)
        pack = work / "pack"
        pack.mkdir()
        parts = args.folder / "parts"
        try:
            unpack(parts if parts.is_dir() else args.folder, pack)
        except (Failed, OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
            cannot(f"the folder cannot be unpacked: {error}")
        if not (pack / "pack.json").is_file():
            cannot(f"{args.folder} is not what pack.sh made")
    bench = Bench(args, pack, work)

    def told_to_end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, told_to_end)
    try:
        bench.prepare()
        bench.work_through(deadline)
    except KeyboardInterrupt:
        bench.report["cut_short"] = True
    finally:
        bench.runner.stop()
        bench.clean()
        bench.write()
    print((args.out / "report.txt").read_text(encoding="utf-8"), end="")
    return 1 if any(part["status"] == "failed" for part in bench.report["parts"]) else 0


if __name__ == "__main__":
    main()
