"""The report as text, from what was measured so far. What is missing is left out or said."""

import json
import pathlib
import sys

# What is compared: title, unit, key, digits, whether more is better (None: no ratio), target.
UPDATE_ROWS = [
    ("from start to end", "s", "seconds", 1, False, 4.0),
    ("processor", "CPU-s", "cpu_seconds", 1, False, None),
    ("peak memory", "MiB", "peak_mib", 0, False, None),
    ("peak memory of the card", "MiB", "card_peak_mib", 0, False, None),
    ("joules of the card", "J", "card_joules", 0, False, None),
    ("the same above idle", "J", "card_joules_above_idle", 0, False, None),
    ("gate loss afterwards", "nats", "new_loss", 4, None, None),
    ("delta", "nats", "delta", 4, True, None),
    ("delta / joule of the card", "unats/J", "delta_per_card_joule", 2, True, 2.0),
]
RATE_ROWS = [
    # Title, cryo's part, the peer's part, the keys in both, target. Both make the token ids while
    # they are timed, but for the last row, where the peer has them ready.
    ("training, bf16", "rates_bf16", "peer_rates_bf16", "train", "train", 1.2),
    ("training, f32", "rates_f32", "peer_rates_f32", "train", "train", None),
    ("training, processor", "rates_cpu", "peer_rates_cpu", "train", "train", None),
    ("evaluation, bf16", "rates_bf16", "peer_rates_bf16", "eval", "eval_sorted", None),
    ("evaluation, f32", "rates_f32", "peer_rates_f32", "eval", "eval_sorted", None),
    ("evaluation, processor", "rates_cpu", "peer_rates_cpu", "eval", "eval_sorted", None),
    ("embedding, bf16", "rates_bf16", None, "embed", None, None),
    ("embedding, f32", "rates_f32", None, "embed", None, None),
    ("embedding, processor", "rates_cpu", None, "embed", None, None),
    ("training, bf16, peer tokenised", "rates_bf16", "peer_rates_ready", "train", "train", None),
]


def value(number, digits):
    # Adding zero takes the sign off a zero.
    return "" if number is None else f"{round(number, digits) + 0.0:.{digits}f}"


def met(ratio, target):
    if target is None:
        return ""
    if ratio is None:
        return f"{target:>8.1f}  open"
    return f"{target:>8.1f}  {'met' if ratio >= target else 'missed'}"


def ratio_of(ours, theirs, more_is_better):
    if ours is None or theirs is None or more_is_better is None:
        return None
    over, under = (ours, theirs) if more_is_better else (theirs, ours)
    return over / under if under and under > 0 else None


def machine(report):
    found = report.get("machine") or {}
    card, versions = found.get("card") or {}, found.get("versions") or {}
    rows = []
    if card.get("name"):
        rows.append(("card", ", ".join([
            card["name"], f"{card.get('memory.total')} MiB",
            f"compute {card.get('compute_cap')}", f"limit {card.get('power.limit')} W",
            f"clock {card.get('clocks.max.sm')} MHz at most",
            f"MIG {card.get('mig.mode.current')}",
        ])))
        driver = f"{card.get('driver_version')}, CUDA {card.get('cuda')}"
        rows.append(("driver", f"{driver}, persistence {card.get('persistence_mode')}"))
    elif card:
        rows.append(("card", f"unknown: {card.get('error')}"))
    if "counter" in found:
        idle = found.get("idle_watts")
        rows.append(("counter", found["counter"] + (f", {idle:.1f} W idle" if idle else "")))
    if found.get("processor"):
        rows.append(("processor", f"{found['processor']}, {found['cores_allowed']} of "
                     f"{found['cores']} cores, {found.get('memory_mib', '?')} MiB, "
                     f"Linux {found['kernel']}"))
    rows.append(("cryo", found.get("cryo", "unknown")))
    if versions:
        names = ["python", "torch", "torch_cuda", "transformers", "peft"]
        known = [f"{name} {versions.get(name)}" for name in names if name in versions]
        rows.append(("peer", ", ".join(known)))
        if versions.get("missing"):
            rows.append(("", versions["missing"]))
        elif "cuda" in versions and not versions["cuda"] and report["device"] == "cuda":
            rows.append(("", "torch sees no card: the peer is left out"))
    if report["device"] == "cuda":
        rows.append(("libdevice", report.get("libdevice") or
                     "none found: kernels with exp, log or tanh cannot be compiled"))
    for name, setting in (report.get("settings") or {}).items():
        rows.append(("set", f"{name}={setting}"))
    return ["machine", *(f"  {name:<12}{text}" for name, text in rows)]


def update(report):
    cold, warm = report.get("update_cold"), report.get("update_warm")
    peer = report.get("peer_update")
    shown = next((run for run in [warm, cold, peer] if run), None)
    if shown is None:
        return []
    ours = warm or cold or {}
    lines = [
        f"one update: {shown.get('steps')} steps of 32, {ours.get('precision') or ''}".rstrip(", "),
        f"  {'':27}{'unit':<9}{'first':>10}{'second':>10}{'peer':>10}"
        f"{'better by':>11}{'target':>8}",
    ]
    for title, unit, key, digits, more, target in UPDATE_ROWS:
        runs = [(run or {}).get(key) for run in (cold, warm, peer)]
        if all(number is None for number in runs):
            continue
        # The second run is what people have every day; the first one is in the line below.
        better = ratio_of(runs[1], runs[2], more)
        scale = 1e6 if unit == "unats/J" else 1
        cells = "".join(
            f"{value(None if number is None else number * scale, digits):>10}" for number in runs
        )
        line = f"  {title:<27}{unit:<9}{cells}{value(better, 2):>11}{met(better, target)}"
        lines.append(line.rstrip())
    if cold and peer:
        first = ratio_of(cold["seconds"], peer["seconds"], False)
        lines.append(f"  the first run beside the peer: better by {first:.2f} in seconds")
    if cold and warm:
        lines.append(f"  what a first run costs more: {cold['seconds'] - warm['seconds']:.1f} s")
    lines += shipped(report.get("update_shipped"), peer)
    cache = (cold or {}).get("autotune_cache")
    if cache is not None:
        size = f"{cache['bytes'] / 1024:.0f} KiB in {', '.join(cache['files'])}"
        lines.append("  autotune left " + (size if cache["files"] else "no file for later runs"))
    if ours.get("receipt_joules") is not None:
        lines.append(
            f"  cryo's receipt: {ours['receipt_joules']:.0f} J by {ours.get('receipt_meter')} "
            f"({ours.get('receipt_provenance')}), nothing taken off for idling, "
            f"{ours.get('backend')} in {ours.get('precision')}"
        )
    if peer and peer.get("phases"):
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in peer["phases"].items())
        lines.append(f"  the peer's seconds: {phases}")
    return lines


def shipped(run, peer):
    """The recipe that ships has other steps, so its rows would not belong into the table."""
    if not run:
        return []
    line = (
        f"  the recipe that ships, {run['steps']} steps: {run['seconds']:.1f} s, "
        f"gate loss {value(run['new_loss'], 4)}"
    )
    gain = run.get("delta_per_card_joule")
    if gain is not None:
        line += f", {1e6 * gain:.2f} unats/J of the card"
        better = ratio_of(gain, (peer or {}).get("delta_per_card_joule"), True)
        line += "" if better is None else f", better than the peer by {better:.2f}"
    return [line]


def rates(report):
    lines = []
    for title, ours, theirs, key, peer_key, target in RATE_ROWS:
        cryo, peer = report.get(ours), report.get(theirs) if theirs else None
        if cryo is None and peer is None:
            continue
        a, b = (cryo or {}).get(key), (peer or {}).get(peer_key)
        ratio = ratio_of(a, b, True)
        sizes = [
            f"{run['train_batch']}" if run and key == "train" else "" for run in (cryo, peer)
        ]
        lines.append(
            f"  {title:<32}{value(a, 0):>9}{sizes[0]:>7}{value(b, 0):>9}{sizes[1]:>7}"
            f"{value(ratio, 2):>11}{met(ratio, target)}".rstrip()
        )
    if not lines:
        return []
    head = f"  {'':32}{'cryo':>9}{'batch':>7}{'peer':>9}{'batch':>7}{'better by':>11}{'target':>8}"
    lines = ["rates, samples per second, each at its best batch size", head, *lines]
    tables = [
        (name, report.get(key)) for name, key in [
            ("cryo, bf16", "rates_bf16"), ("peer, bf16", "peer_rates_bf16"),
            ("cryo, f32", "rates_f32"), ("peer, f32", "peer_rates_f32"),
            ("peer, bf16, tokenised", "peer_rates_ready"),
        ] if report.get(key)
    ]
    sizes = sorted({int(size) for _, found in tables for size in found["train_by_batch"]})
    if sizes:
        lines.append(f"  {'training, by batch size':<32}" + "".join(f"{s:>9}" for s in sizes))
    for name, found in tables:
        cells = (value(found["train_by_batch"].get(str(size)), 0) for size in sizes)
        lines.append(f"  {name:<32}" + "".join(f"{cell:>9}" for cell in cells))
    notes = {found["note"] for _, found in tables if found.get("note")}
    return lines + [f"  {note}" for note in sorted(notes)]


def determinism(report):
    lines = []
    for key in ["determinism", "determinism_f32"]:
        found = report.get(key)
        if not found:
            continue
        losses = " and ".join(f"{loss:.9f}" for loss in found["new_losses"])
        if found["equal"]:
            text = "the same adapter, byte for byte"
        elif "largest_difference" in found:
            text = (
                f"adapters differ by {found['largest_difference']:.3g} at most "
                f"(largest value {found['largest_value']:.3g}), in "
                f"{100 * found['different'] / found['values']:.1f} % of {found['values']} values"
            )
        else:
            text = found["reason"]
        lines += [f"  {found['precision']:<6}{text}", f"  {'':6}gate losses {losses}"]
    return ["determinism: 20 steps, twice, in fresh projects with the same seed", *lines] \
        if lines else []


def tests(report):
    found = report.get("card_tests")
    if not found:
        return []
    lines = [f"device tests: {found['passed']} passed, {found['failed']} failed"]
    return lines + [f"  {line}" for line in found["figures"]] + [
        f"  FAILED {name}" for name in found["failures"]
    ]


def parts(report):
    lines = [f"parts{'':29}{'status':<9}{'seconds':>8}{'limit':>7}"]
    for part in report["parts"]:
        line = f"  {part['title']:<32}{part['status']:<9}{part['seconds']:>8.1f}{part['limit']:>7}"
        lines.append(line + (f"  {part['note']}" if part["note"] else ""))
    return lines


def text(report):
    packed = report.get("packed") or {}
    head = [f"cryo on {'a card' if report['device'] == 'cuda' else 'the processor'}, "
            f"{report['made']}"]
    if packed:
        head.append(f"built from {packed.get('commit')}, {packed.get('rustc')}, "
                    f"features {packed.get('features')}")
    sections = [head, machine(report), update(report), rates(report), determinism(report),
                tests(report), parts(report)]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


if __name__ == "__main__":
    print(text(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
