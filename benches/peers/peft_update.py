"""One update by a plain PEFT and PyTorch loop, timed: the peer in the benchmark.

The loop is what the libraries' own guides show: load, evaluate, train a LoRA
with AdamW, evaluate again, save. It prints one JSON line.

With --until it stops as soon as a tune split has a given loss, and says what
that took. The other scripts for PEFT take their model and batches from here.
"""

import time

TOP = time.perf_counter()  # before anything heavy is imported

import argparse
import contextlib
import csv
import json
import os
import pathlib
import random
import resource

TARGETS = ["query", "key", "value", "attention.output.dense"]
UNTIL_EVERY = 10  # steps between two looks at the tune split


def process_age():
    """Seconds since the process began, so that the interpreter's start counts."""
    try:
        with open("/proc/self/stat") as file:
            # The second field may hold spaces; what follows its ")" does not.
            fields = file.read().rsplit(")", 1)[1].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, ValueError):
        return 0.0


BEFORE_TOP = process_age() - (time.perf_counter() - TOP)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def limit_threads(count):
    """The thread pools read these when they are made, so this goes before the imports."""
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]:
        os.environ[name] = str(count)
    # Nothing is fetched: a lookup would be timed as work.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], int(row["label"])) for row in csv.DictReader(file)]


def load(folder, device, rank, alpha):
    """The tokenizer, and the model with its LoRA."""
    import torch
    import transformers
    from peft import LoraConfig, TaskType, get_peft_model

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # f32, the type that the rest of the comparison runs in; bf16 is autocast's.
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.float32
    )
    # Every other setting stays as peft has it; so does the model's own dropout.
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=alpha, target_modules=TARGETS
    )
    return tokenizer, get_peft_model(model, config).to(device)


def batch_maker(tokenizer, max_tokens, device):
    """A function that makes the model's inputs of some rows, padded to their longest."""
    import torch

    def batch_of(rows):
        texts, labels = zip(*rows)
        inputs = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        )
        return inputs.to(device), torch.tensor(labels, device=device)

    return batch_of


def precision_context(device, precision):
    """What the forward pass runs in: bf16 is autocast, as `bf16=True` of the Trainer is."""
    import torch

    if precision == "f32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def synchronise(device):
    """Waits for the card, so that a clock read next shows finished work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def shuffled_batches(rows, size, seed):
    """Seeded shuffles of the rows, as many passes as it takes."""
    order = random.Random(seed)
    while True:
        shuffled = rows[:]
        order.shuffle(shuffled)
        for start in range(0, len(shuffled), size):
            yield shuffled[start : start + size]


def train_step(model, optimizer, inputs, labels, context):
    with context:
        loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def evaluate(model, batch_of, rows, context, size=32):
    """Every row's loss, in the order of the rows, and how many are right."""
    import torch

    model.eval()
    losses, right = [], 0
    with torch.no_grad():
        for start in range(0, len(rows), size):
            inputs, labels = batch_of(rows[start : start + size])
            with context:
                logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
            losses += loss.tolist()
            right += (logits.argmax(-1) == labels).sum().item()
    return losses, right


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the base model's folder")
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--gate", required=True, help="the rows that the update is judged on")
    parser.add_argument("--tune", help="the rows that --until looks at")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument(
        "--until", type=float, metavar="LOSS",
        help=f"stop once the mean loss of --tune, taken every {UNTIL_EVERY} steps, is at most this",
    )
    parser.add_argument("--losses", metavar="FILE", help="write the losses of the gate rows there")
    parser.add_argument("--out", help="the folder for the adapter")
    parser.add_argument("--no-save", action="store_true", help="write no adapter")
    args = parser.parse_args()
    if not args.out and not args.no_save:
        parser.error("one of --out and --no-save is needed")
    if args.until is not None and not args.tune:
        parser.error("--until needs --tune")
    return args


def main():
    args = parse()
    limit_threads(args.threads)

    clock = time.perf_counter
    begun = clock()
    import peft
    import torch
    import transformers

    seconds = {"imports": clock() - begun}

    begun = clock()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer, model = load(args.model, args.device, args.rank, args.alpha)
    train, gate = read_csv(args.train), read_csv(args.gate)
    tune = read_csv(args.tune) if args.until is not None else []
    batch_of = batch_maker(tokenizer, args.max_tokens, args.device)
    context = precision_context(args.device, args.precision)
    synchronise(args.device)
    seconds["load"] = clock() - begun

    begun = clock()
    base_losses, base_right = evaluate(model, batch_of, gate, context)
    seconds["base_eval"] = clock() - begun

    until = None
    begun, cpu_begun = clock(), cpu_seconds()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=args.lr
    )
    model.train()
    steps, trained = 0, 0
    batches = shuffled_batches(train, args.batch, args.seed)
    while steps < args.steps:
        rows = next(batches)
        train_step(model, optimizer, *batch_of(rows), context)
        steps += 1
        trained += len(rows)
        if args.until is not None and steps % UNTIL_EVERY == 0:
            losses, _ = evaluate(model, batch_of, tune, context)
            model.train()
            tune_loss = sum(losses) / len(losses)
            until = {
                "loss": args.until,
                "reached": tune_loss <= args.until,
                "tune_loss": tune_loss,
                "steps": steps,
                # Since training began; the looks at the tune split are in it.
                "seconds": round(clock() - begun, 4),
                "cpu_seconds": round(cpu_seconds() - cpu_begun, 3),
            }
            if until["reached"]:
                break
    synchronise(args.device)
    seconds["train"] = clock() - begun

    begun = clock()
    new_losses, new_right = evaluate(model, batch_of, gate, context)
    seconds["new_eval"] = clock() - begun

    begun = clock()
    if not args.no_save:
        model.save_pretrained(args.out)
    seconds["save"] = clock() - begun
    seconds["total"] = BEFORE_TOP + clock() - TOP

    if args.losses:
        pathlib.Path(args.losses).write_text(json.dumps(new_losses), encoding="utf-8")
    base_loss, new_loss = sum(base_losses) / len(gate), sum(new_losses) / len(gate)
    report = {
        "peer": "peft",
        "seconds": {key: round(value, 4) for key, value in seconds.items()},
        "train_samples_per_second": round(trained / seconds["train"], 2),
        "eval_samples_per_second": round(
            2 * len(gate) / (seconds["base_eval"] + seconds["new_eval"]), 2
        ),
        "steps": steps,
        "base_loss": base_loss,
        "new_loss": new_loss,
        "delta": base_loss - new_loss,  # above zero is a gain
        "base_accuracy": base_right / len(gate),
        "accuracy": new_right / len(gate),
        "until": until,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": (
            torch.cuda.max_memory_allocated() if args.device == "cuda" else None
        ),
        "cpu_seconds": round(cpu_seconds(), 3),
        "threads": args.threads,
        "device": args.device,
        "precision": args.precision,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
