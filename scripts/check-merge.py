#!/usr/bin/env python3
"""Repeats a merge from docs/receipt-format.md, without cryo and without any library.

    scripts/check-merge.py BASE ADAPTER VERSION

Each is a folder with its SHA256SUMS: the model that an update started from, its adapter, and the version that was made
of them. Prints the names of the three folders, which the receipt has as base_model_hash, adapter_hash and
new_model_hash, and "ok". Exit code: 0 the version is that merge, 1 it is not, 2 the check could not be done.
"""

import hashlib
import json
import math
import struct
import sys
from array import array
from pathlib import Path

LIST, WEIGHTS, CONFIG = "SHA256SUMS", "model.safetensors", "config.json"
PEFT = "base_model.model."
LEFT_OUT = {"I64", "I32", "U8", "BOOL"}
HEADS = {"bert": ["classifier"], "distilbert": ["pre_classifier", "classifier"]}
CLASSES = {"bert": "BertForSequenceClassification", "distilbert": "DistilBertForSequenceClassification"}


class Bad(Exception):
    """Something is not what the page says."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def checked_list(folder: Path) -> dict[str, str]:
    """The files of a folder and their digests, which are those of the files."""
    listed = {}
    for line in (folder / LIST).read_text().splitlines():
        digest, name = line.split("  ", 1)
        listed[name] = digest
        if sha256((folder / name).read_bytes()) != digest:
            raise Bad(f"{folder / name} is not the file in its list")
    return listed


def singles(kind: str, raw: bytes) -> array:
    """Values of a tensor as singles; a double holds each of them exactly."""
    count = len(raw) // (4 if kind == "F32" else 2)
    if kind == "F32":
        return array("f", struct.unpack(f"<{count}f", raw))
    if kind == "F16":
        return array("f", struct.unpack(f"<{count}e", raw))
    if kind == "BF16":
        wide = struct.pack(f"<{count}I", *(value << 16 for value in struct.unpack(f"<{count}H", raw)))
        return array("f", struct.unpack(f"<{count}f", wide))
    raise Bad(f"a tensor has type {kind}")


def tensors(path: Path) -> dict[str, tuple[list[int], array]]:
    """Shape and values of every tensor of a safetensors file."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__" or entry["dtype"] in LEFT_OUT:
            continue
        begin, end = entry["data_offsets"]
        found[name] = (entry["shape"], singles(entry["dtype"], data[start + begin : start + end]))
    return found


def written(weights: dict[str, tuple[list[int], array]]) -> bytes:
    """The safetensors file of these tensors."""
    names = sorted(weights, key=str.encode)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        shape, values = weights[name]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * len(values)]}
        at += 4 * len(values)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    values = (struct.pack(f"<{len(weights[name][1])}f", *weights[name][1]) for name in names)
    return struct.pack("<Q", len(text)) + text + b"".join(values)


def add_product(weight: array, a: array, b: array, rank: int, scale: float) -> array:
    """W + s (B A). The product or sum of two singles in a double, rounded to a single, is that of singles."""
    inputs, outputs = len(a) // rank, len(b) // rank
    rows = [a[k * inputs : (k + 1) * inputs] for k in range(rank)]
    merged = array("f")
    for o in range(outputs):
        sums = array("f", bytes(4 * inputs))
        for k in range(rank):
            factor = b[o * rank + k]
            products = array("f", [factor * value for value in rows[k]])
            sums = array("f", [x + y for x, y in zip(sums, products)])
        scaled = array("f", [scale * value for value in sums])
        merged.extend(x + y for x, y in zip(weight[o * inputs : (o + 1) * inputs], scaled))
    return merged


def merge(base: Path, adapter: Path) -> bytes:
    """The weights of the version."""
    family = json.loads((base / CONFIG).read_text())["model_type"]
    head = {f"{layer}.{part}" for layer in HEADS[family] for part in ("weight", "bias")}
    prefix = f"{family}."
    full = lambda name: name if name.startswith(prefix) or name in head else prefix + name
    weights = {full(name): tensor for name, tensor in tensors(base / WEIGHTS).items()}
    peft = json.loads((adapter / "adapter_config.json").read_text())
    rank, alpha = peft["r"], peft["lora_alpha"]
    scale = array("f", [alpha / (math.sqrt(rank) if peft.get("use_rslora") else rank)])[0]
    parts = tensors(adapter / "adapter_model.safetensors")
    for name, (shape, values) in parts.items():
        inner = name.removeprefix(PEFT)
        if inner.endswith(".lora_A.weight"):
            layer = inner.removesuffix(".lora_A.weight")
            weight_shape, weight = weights[f"{layer}.weight"]
            b = parts[f"{PEFT}{layer}.lora_B.weight"][1]
            weights[f"{layer}.weight"] = (weight_shape, add_product(weight, values, b, rank, scale))
        elif inner in head:
            weights[inner] = (shape, values)
    return written(weights)


def config_of(base: Path, labels: list[str]) -> dict:
    """The configuration of the version."""
    config = json.loads((base / CONFIG).read_text())
    return config | {
        "architectures": [CLASSES[config["model_type"]]],
        "id2label": {str(at): label for at, label in enumerate(labels)},
        "label2id": {label: at for at, label in enumerate(labels)},
        "problem_type": "single_label_classification",
        "torch_dtype": "float32",
    }


def check(base: Path, adapter: Path, version: Path) -> None:
    lists = {folder: checked_list(folder) for folder in (base, adapter, version)}
    for what, folder in (("base", base), ("adapter", adapter), ("version", version)):
        print(f"{what:8} sha256:{sha256((folder / LIST).read_bytes())}")
    recipe = json.loads((adapter / "recipe.json").read_text())
    if recipe["base_model_hash"] != f"sha256:{sha256((base / LIST).read_bytes())}":
        raise Bad("the adapter was made for another base")
    own = (WEIGHTS, CONFIG)
    kept = [{name: digest for name, digest in lists[folder].items() if name not in own} for folder in (base, version)]
    if kept[0] != kept[1]:
        raise Bad("the version has other files beside its weights than the base")
    # By value: programs print some numbers differently.
    if json.loads((version / CONFIG).read_text()) != config_of(base, recipe["labels"]):
        raise Bad(f"{version / CONFIG} is not that of the base with these labels")
    merged = sha256(merge(base, adapter))
    print(f"merged   sha256:{merged}")
    if merged != lists[version][WEIGHTS]:
        raise Bad(f"{version / WEIGHTS} is not the merge of its adapter")


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        check(*map(Path, sys.argv[1:]))
    except Bad as fault:
        print(f"check-merge: {fault}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, struct.error) as error:
        print(f"check-merge: {error!r}", file=sys.stderr)
        return 2
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
