"""Loads an adapter with peft, and a merged model with transformers, and checks their logits.

An adapter counts as portable when the library that it is meant for computes
what we computed. Exits with 1 where any logit is off by more than 1e-4.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every input is a local folder

import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

LIMIT = 1e-4


def adapter_labels(folder):
    """The number of labels, read off the head that the adapter carries."""
    with safe_open(str(folder / "adapter_model.safetensors"), "pt") as file:
        for name in file.keys():
            # The dot keeps DistilBERT's pre_classifier out.
            if name.endswith((".classifier.weight", ".score.weight")):
                return file.get_slice(name).get_shape()[0]
    sys.exit("the adapter holds no classification head")


@torch.no_grad()
def logits_of(model, tokenizer, texts):
    model.eval()
    rows = []
    for text in texts:
        # Alone, so that there is no padding to get wrong.
        ids = torch.tensor([tokenizer.encode(text).ids])
        rows.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0])
    return torch.stack(rows).double()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--adapter", required=True, type=Path)
    parser.add_argument("--merged", type=Path)
    parser.add_argument("--texts", required=True, type=Path, help="JSON list of texts")
    parser.add_argument(
        "--expected", required=True, type=Path,
        help="JSON list of logit lists, or an object that holds one under logits",
    )
    parser.add_argument("--max-tokens", required=True, type=int)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    texts = json.loads(args.texts.read_text(encoding="utf-8"))
    expected = json.loads(args.expected.read_text(encoding="utf-8"))
    if isinstance(expected, dict):
        expected = expected["logits"]
    expected = torch.tensor(expected, dtype=torch.float64)

    tokenizer = Tokenizer.from_file(str(args.base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(args.max_tokens)

    base = AutoModelForSequenceClassification.from_pretrained(
        args.base, num_labels=adapter_labels(args.adapter), dtype=torch.float32
    )
    models = {"adapter": PeftModel.from_pretrained(base, args.adapter)}
    if args.merged:
        models["merged"] = AutoModelForSequenceClassification.from_pretrained(
            args.merged, dtype=torch.float32
        )

    failed = False
    for name, model in models.items():
        got = logits_of(model, tokenizer, texts)
        if got.shape != expected.shape:
            print(f"{name}: shape {list(got.shape)}, expected {list(expected.shape)}")
            failed = True
            continue
        worst = (got - expected).abs().max().item()
        # Written so that a NaN fails as well.
        good = worst <= LIMIT
        print(f"{name}: largest difference {worst:.3e} {'ok' if good else 'TOO LARGE'}")
        failed = failed or not good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
