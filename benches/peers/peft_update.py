"""One update by a plain PEFT and PyTorch loop, timed: the peer in the benchmark.

The loop is what the libraries' own guides show: load, evaluate, train a LoRA
with AdamW, evaluate again, save. It prints one JSON line.
"""

import time

TOP = time.perf_counter()  # before anything heavy is imported

import argparse
import csv
import json
import os
import random
import resource


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


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--gate", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], int(row["label"])) for row in csv.DictReader(file)]


def main():
    args = parse()
    # The thread pools read these when they are made, so they go before the
    # imports. Nothing is fetched: a lookup would be timed as work.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["MKL_NUM_THREADS"] = str(args.threads)
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    clock = time.perf_counter
    begun = clock()
    import peft
    import torch
    import transformers
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    seconds = {"imports": clock() - begun}

    begun = clock()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    # f32, the type that the rest of the comparison runs in.
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=2, dtype=torch.float32
    )
    # Every other setting stays as peft has it; so does the model's own dropout.
    model = get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=args.rank,
            lora_alpha=args.alpha,
            target_modules=["query", "key", "value", "attention.output.dense"],
        ),
    )
    train, gate = read_csv(args.train), read_csv(args.gate)
    seconds["load"] = clock() - begun

    def batch_of(rows):
        texts, labels = zip(*rows)
        inputs = tokenizer(
            list(texts),
            padding=True,  # to the longest of the batch
            truncation=True,
            max_length=args.max_tokens,
            return_tensors="pt",
        )
        return inputs, torch.tensor(labels)

    @torch.no_grad()
    def evaluate():
        model.eval()
        loss, right = 0.0, 0
        for start in range(0, len(gate), 32):
            inputs, labels = batch_of(gate[start : start + 32])
            logits = model(**inputs).logits
            # Summed, then divided once: the last batch may be a short one.
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(-1) == labels).sum().item()
        return loss / len(gate), right / len(gate)

    def batches():
        """Seeded shuffles of the training rows, as many passes as it takes."""
        order = random.Random(args.seed)
        while True:
            rows = train[:]
            order.shuffle(rows)
            for start in range(0, len(rows), args.batch):
                yield rows[start : start + args.batch]

    begun = clock()
    base_loss, base_accuracy = evaluate()
    seconds["base_eval"] = clock() - begun

    begun = clock()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=args.lr
    )
    model.train()
    trained = 0
    for _, rows in zip(range(args.steps), batches()):
        inputs, labels = batch_of(rows)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        trained += len(rows)
    seconds["train"] = clock() - begun

    begun = clock()
    new_loss, accuracy = evaluate()
    seconds["new_eval"] = clock() - begun

    begun = clock()
    model.save_pretrained(args.out)
    seconds["save"] = clock() - begun

    seconds["total"] = BEFORE_TOP + clock() - TOP
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "peer": "peft",
        "seconds": {key: round(value, 4) for key, value in seconds.items()},
        "train_samples_per_second": round(trained / seconds["train"], 2),
        "eval_samples_per_second": round(
            2 * len(gate) / (seconds["base_eval"] + seconds["new_eval"]), 2
        ),
        "base_loss": base_loss,
        "new_loss": new_loss,
        "delta": base_loss - new_loss,  # above zero is a gain
        "base_accuracy": base_accuracy,
        "accuracy": accuracy,
        "peak_rss_bytes": usage.ru_maxrss * 1024,  # Linux counts in KiB
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "threads": args.threads,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
