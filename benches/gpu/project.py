"""A project of cryo in an empty folder, what its run says, and how far two adapters are apart."""

import array
import json
import math
import pathlib
import re
import shutil
import struct
import sys

PIPELINE = "pipelines/sentiment.toml"
TASK = "sentiment-delta"
REJECTED = 10  # cryo's exit code for an update that the gate rejected
# More than any update here takes: no run may end because its joules do.
PLENTY = 10_000_000
# What the peer's script does: it is the yardstick, not the shipped recipe.
SAME_RECIPE = {
    "batch_size": 32, "learning_rate": "5e-4", "decay": '"constant"', "layers": '"all"',
}


def set_key(text, section, key, value):
    """Gives a key of a section of a TOML text a value, whether it is there or not."""
    header = re.search(rf"^\[{re.escape(section)}\][^\n]*\n", text, flags=re.MULTILINE)
    if header is None:
        raise ValueError(f"{PIPELINE} has no section [{section}]")
    begin = header.end()
    following = re.search(r"^\[", text[begin:], flags=re.MULTILINE)
    end = begin + following.start() if following else len(text)
    body, count = re.subn(
        rf"^({re.escape(key)}\s*=\s*)[^\s#]+", rf"\g<1>{value}", text[begin:end], flags=re.MULTILINE
    )
    if count == 0:
        body = f"{key} = {value}\n{body}"
    return text[:begin] + body + text[end:]


def with_source(settings, model):
    """Settings whose model comes from a folder, since there may be no network."""
    before, section, after = settings.partition("[models.minilm]")
    return before + section + after.replace("sources = [", f'sources = ["{model}", ', 1)


def make(folder, pack, recipe, seed, precision):
    """Copies what a run reads, with another seed and precision, and a recipe's settings."""
    folder.mkdir(parents=True)
    settings = (pack / "cryo.toml").read_text(encoding="utf-8")
    (folder / "cryo.toml").write_text(with_source(settings, pack / "model"), encoding="utf-8")
    (folder / "data").symlink_to(pack / "data")
    (folder / "pipelines").mkdir()
    text = (pack / PIPELINE).read_text(encoding="utf-8")
    text = set_key(text, "pipeline", "seed", seed)
    text = set_key(text, f"task.{TASK}", "budget_joules", PLENTY)
    for key, setting in recipe.items():
        text = set_key(text, f"task.{TASK}.lora", key, setting)
    if precision != "f32":
        text = set_key(text, f"task.{TASK}.lora", "precision", f'"{precision}"')
    (folder / PIPELINE).write_text(text, encoding="utf-8")


def environment(device):
    return {
        "CRYO_DEVICE": "cuda:0" if device == "cuda" else device,
        # The card's own counter is compared; an idle baseline would be learned in each run.
        "CRYO_METER__IDLE_WATTS": "0",
        "CRYO_BUCKET__OPENING_GRANT_JOULES": str(PLENTY),
        "CRYO_BUCKET__CAP_JOULES": str(PLENTY),
        "HF_HUB_OFFLINE": "1",
    }


def number(text):
    """A decimal text of a receipt as a float; what is missing or null stays None."""
    return None if text is None else float(text)


def outcome(said, folder):
    """What a run's JSON says, or why it cannot be used."""
    try:
        receipt = json.loads(said)["tasks"][0]["receipt"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError("cryo printed no receipt") from None
    train, energy = receipt.get("train") or {}, receipt.get("energy") or {}
    env = receipt.get("env") or {}
    adapter = (receipt.get("adapter_hash") or "").split(":")[-1]
    result = {
        "kind": receipt.get("kind"),
        "reason": receipt.get("reason"),
        "accepted": receipt.get("accepted"),
        "steps": train.get("steps"),
        "stopped": train.get("stopped"),
        "base_loss": number(receipt.get("base_loss")),
        "new_loss": number(receipt.get("new_loss")),
        "delta": number(receipt.get("delta")),
        "accuracy": number((receipt.get("gate") or {}).get("accuracy")),
        "receipt_joules": number(receipt.get("joules_spent")),
        "receipt_joules_train": number(receipt.get("joules_train")),
        "receipt_joules_eval": number(receipt.get("joules_eval")),
        "receipt_meter": energy.get("meter"),
        "receipt_provenance": energy.get("provenance"),
        "backend": env.get("backend"),
        "device": env.get("device"),
        "precision": env.get("precision"),
        "adapter": adapter or None,
    }
    if adapter:
        file = folder / ".cryo/adapters" / adapter / "adapter_model.safetensors"
        result["adapter_file"] = str(file)
    return result


def tensors(path):
    """The singles of a safetensors file, by name. Adapters hold nothing else."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        if about["dtype"] != "F32":
            raise ValueError(f"{name} is {about['dtype']}, not F32")
        begin, end = about["data_offsets"]
        values = array.array("f")
        values.frombytes(data[8 + length + begin : 8 + length + end])
        if sys.byteorder == "big":
            values.byteswap()
        found[name] = values
    return found


def apart(first, second):
    """How far two adapters are apart."""
    a, b = tensors(first), tensors(second)
    if a.keys() != b.keys():
        return {"equal": False, "reason": "they do not hold the same tensors"}
    largest, where, different, count, largest_value = 0.0, None, 0, 0, 0.0
    for name in sorted(a):
        if len(a[name]) != len(b[name]):
            return {"equal": False, "reason": f"{name} differs in size"}
        count += len(a[name])
        for x, y in zip(a[name], b[name]):
            largest_value = max(largest_value, abs(x))
            if x == y:
                continue
            different += 1
            difference = abs(x - y)
            # A NaN is further away than any number.
            if math.isnan(difference) or difference > largest:
                largest, where = difference, name
                if math.isnan(difference):
                    return {"equal": False, "reason": f"{name} holds what is no number"}
    return {
        "equal": different == 0,
        "largest_difference": largest,
        "in": where,
        "different": different,
        "values": count,
        "largest_value": largest_value,
    }
