"""How many samples a second a plain PEFT and PyTorch loop trains on and evaluates.

Evaluation is timed twice: in the order of the file, which is what a plain loop
does, and with the rows sorted by length, which is the best a careful one does.
The sorting itself is not timed. It prints one JSON line.
"""

import argparse
import json
import os
import time

from peft_update import (
    batch_maker,
    evaluate,
    limit_threads,
    load,
    precision_context,
    read_csv,
    shuffled_batches,
    synchronise,
    train_step,
)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the base model's folder")
    parser.add_argument("--train", required=True, help="CSV with the columns text and label")
    parser.add_argument("--gate", required=True, help="the rows to evaluate")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[32],
        help="batch sizes; each figure is that of the size that suits it best",
    )
    parser.add_argument("--steps", type=int, default=20, help="training steps to time, at least")
    parser.add_argument("--seconds", type=float, default=5, help="time to measure, at least")
    parser.add_argument("--warmup", type=int, default=4, help="batches before the clock runs")
    parser.add_argument("--rows", type=int, help="evaluate only the first rows")
    parser.add_argument(
        "--pretokenised", action="store_true",
        help="make token ids of all texts before the clock runs; padding is still timed",
    )
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    return parser.parse_args()


def joule_counter(device):
    """A function that reads the card's joules so far, or None where nothing counts them."""
    if device != "cuda":
        return lambda: None
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        # By name, since CUDA may number the cards otherwise than the driver does.
        name = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        card = pynvml.nvmlDeviceGetHandleByUUID(name)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    except Exception:  # no module, no driver, or a card without a counter
        return lambda: None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(card) / 1000


def padded_batch_maker(tokenizer, encoded, device):
    """Like `batch_maker`, from token ids that are there already, by text."""
    import torch

    def batch_of(rows):
        texts, labels = zip(*rows)
        ids = [encoded[text] for text in texts]
        inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        return inputs.to(device), torch.tensor(labels, device=device)

    return batch_of


def main():
    args = parse()
    limit_threads(args.threads)
    import peft
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer, model = load(args.model, args.device, args.rank, args.alpha)
    train, gate = read_csv(args.train), read_csv(args.gate)[: args.rows]
    context = precision_context(args.device, args.precision)
    joules = joule_counter(args.device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=args.lr
    )

    texts = [text for text, _ in train + gate]
    ids = tokenizer(texts, truncation=True, max_length=args.max_tokens)["input_ids"]
    encoded = dict(zip(texts, ids))
    by_length = sorted(gate, key=lambda row: len(encoded[row[0]]), reverse=True)
    if args.pretokenised:
        batch_of = padded_batch_maker(tokenizer, encoded, args.device)
    else:
        batch_of = batch_maker(tokenizer, args.max_tokens, args.device)

    def measure(work, least_rounds):
        """Samples per second and joules per sample of `work`, which returns its samples."""
        synchronise(args.device)
        begun, joules_begun = time.perf_counter(), joules()
        rounds, samples = 0, 0
        while rounds < least_rounds or time.perf_counter() - begun < args.seconds:
            samples += work()
            rounds += 1
        synchronise(args.device)
        seconds, joules_ended = time.perf_counter() - begun, joules()
        return {
            "samples_per_second": round(samples / seconds, 2),
            "joules_per_sample": (
                None if joules_ended is None else round((joules_ended - joules_begun) / samples, 6)
            ),
        }

    def training(size):
        batches = shuffled_batches(train, size, args.seed)

        def step():
            rows = next(batches)
            train_step(model, optimizer, *batch_of(rows), context)
            return len(rows)

        model.train()
        for _ in range(args.warmup):
            step()
        return measure(step, args.steps)

    def evaluation(rows, size):
        def sweep():
            evaluate(model, batch_of, rows, context, size)
            return len(rows)

        # A card meets every shape once, since it prepares for each; a processor need not.
        few = rows if args.device == "cuda" else rows[: args.warmup * size]
        evaluate(model, batch_of, few, context, size)
        return measure(sweep, 1)

    by_batch = {
        size: {
            "train": training(size),
            "eval": evaluation(gate, size),
            "eval_sorted": evaluation(by_length, size),
        }
        for size in args.batch
    }
    report = {"peer": "peft"}
    for kind in ["train", "eval", "eval_sorted"]:
        best = max(args.batch, key=lambda size: by_batch[size][kind]["samples_per_second"])
        report[f"{kind}_samples_per_second"] = by_batch[best][kind]["samples_per_second"]
        report[f"{kind}_joules_per_sample"] = by_batch[best][kind]["joules_per_sample"]
        report[f"{kind}_batch"] = best
    report |= {
        "by_batch": by_batch,
        "pretokenised": args.pretokenised,
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
