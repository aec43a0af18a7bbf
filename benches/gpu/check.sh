#!/usr/bin/env bash
# Tries run.sh and the unpacking without a card: stand-ins for cryo, the bench, the tests, torch, the
# peer, nvidia-smi and the driver's library say what real ones say, or fail as real ones fail.
#
#     benches/gpu/check.sh
#
# Needs cc, xz and Python. Exit code: 0 everything is as it should be.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="${CRYOFLUX_ROOT:-$(cd "$here/../.." && pwd)}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack=$work/pack
mkdir -p "$pack"/{bin,data,gpu,model,peers,pipelines,tests} "$work"/{tools,python/torch,python/peft,python/transformers}

cp "$root/cryo.toml" "$pack/"
cp "$root/pipelines/sentiment.toml" "$pack/pipelines/"
printf 'text,label\n' | tee "$pack"/data/reviews-{train,gate}.csv > /dev/null
cp "$here"/*.py "$here/run.sh" "$pack/gpu/"
echo weights > "$pack/model/model.safetensors"
printf '{"commit":"0000000","rustc":"rustc 1.95.0","features":"cuda","source":"%s","program":"%s"}\n' \
    "$work/built/here" "$work/built/target/release/cryo" > "$pack/pack.json"

# An update: looks at its project and its surroundings, writes an adapter, prints a receipt.
cat > "$pack/bin/cryo" << 'END'
#!/usr/bin/env python3
import hashlib, json, os, pathlib, re, struct, sys, time
if "--version" in sys.argv:
    sys.exit(print("cryo 0.0.0"))
assert sys.argv[1:] == ["apply", "pipelines/sentiment.toml", "--task", "sentiment-delta", "--json"]
assert os.environ["CRYO_DEVICE"] == "cuda:0" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
text = pathlib.Path(sys.argv[2]).read_text()
precision = re.search(r'^precision = "(\w+)"', text, flags=re.M)
steps = int(re.search(r"^max_steps\s*=\s*(\d+)", text, flags=re.M).group(1))
shipped = pathlib.Path(os.environ["FAKE_SHIPPED"]).read_text()
recipe = shipped if pathlib.Path.cwd().name == "shipped" else """
batch_size = 32 learning_rate = 5e-4 decay = "constant" layers = "all" """
for key in ["batch_size", "learning_rate", "decay", "layers"]:
    given, wanted = (re.search(rf"{key}\s*=\s*([^\s#]+)", where) for where in (text, recipe))
    assert (given and given.group(1)) == (wanted and wanted.group(1)), key
assert re.search(r"^budget_joules = 2000\b", text, flags=re.M), "another task's budget"
cache = pathlib.Path(os.environ["XDG_CACHE_HOME"])
model = re.search(r'sources = \["([^"]+)"', pathlib.Path("cryo.toml").read_text()).group(1)
assert (pathlib.Path(model) / "model.safetensors").is_file()
if os.environ.get("FAKE_CRYO") == "panic":
    sys.exit("thread 'main' panicked at src/x.rs:1:1:\nthe device is gone\n")
kept = cache / "cubecl/default.db"
time.sleep(0.2 if kept.exists() else 0.8)
kept.parent.mkdir(exist_ok=True)
kept.write_text("tuned")
# Two runs differ a little, as a card's may; in f32 they do not. Only their folders tell them apart.
noise = 0.0 if precision is None else len(pathlib.Path.cwd().name) * 1e-6
header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
data = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 0.5, 0.25 + noise)
digest = hashlib.sha256(data).hexdigest()
folder = pathlib.Path(".cryo/adapters") / digest
folder.mkdir(parents=True)
(folder / "adapter_model.safetensors").write_bytes(data)
print(json.dumps({"status": "done", "tasks": [{"name": "sentiment-delta", "receipt": {
    "kind": "decision", "accepted": True, "reason": "fine",
    "train": {"steps": steps, "stopped": "max-steps"}, "adapter_hash": f"sha256:{digest}",
    "base_loss": "0.693147181", "new_loss": "0.393147181", "delta": "0.300000000",
    "gate": {"accuracy": "0.840000"}, "joules_spent": "1234.000000",
    "energy": {"meter": "nvml:GPU-fake+own-time", "provenance": "modelled"},
    "env": {"backend": "burn-cuda", "device": "cuda:0",
            "precision": precision.group(1) if precision else "f32"}}}]}))
END
cat > "$pack/bin/rates" << 'END'
#!/usr/bin/env python3
import json, os, sys, time
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
sizes = [int(size) for size in option["--batch"].split(",")]
if os.environ.get("FAKE_RATES") == "slow" and len(sizes) > 2:
    time.sleep(600)
seen, rates = set(), []
for size in sizes:  # the first look at a size is slow, as with autotune
    rates.append([size, 100.0 * size if size in seen or option["--device"] == "cpu" else 1.0])
    seen.add(size)
print(json.dumps({"device": option["--device"], "backend": "b", "precision": option["--precision"],
    "threads": 1, "batch_size": 1, "train_by_batch_size": rates, "train_samples_per_second": 1.0,
    "eval_samples_per_second": 90000.0, "embed_texts_per_second": 95000.0}))
END
cat > "$pack/bin/it" << 'END'
#!/usr/bin/env bash
[ "$*" = '--ignored card --nocapture --test-threads=1' ] || exit 3
[ "$(cat "$FAKE_BUILT/tests/fixtures/mark")" = here ] || exit 4
[ -e "$CRYO_TEST_MODEL/model.safetensors" ] || exit 5
printf '\nrunning 2 tests\ntest card::spread ... card: gate loss 0.1 on the CPU, 0.2 in bf16\n'
printf 'card: spread 0.1\nok\n'
if [ "${FAKE_IT:-}" = fail ]; then
    printf 'test card::twice ... FAILED\n\nfailures:\n\nfailures:\n    card::twice\n\n'
    printf 'test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out\n'
    exit 101
fi
printf 'test card::twice ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out\n'
END
mkdir -p "$pack/tests/fixtures" && echo here > "$pack/tests/fixtures/mark"
for name in torch peft transformers; do
    echo '__version__ = "9.9"' > "$work/python/$name/__init__.py"
done
cat >> "$work/python/torch/__init__.py" << 'END'
import os
class cuda:
    is_available = staticmethod(lambda: not os.environ.get("FAKE_NO_CUDA"))
    get_device_name = staticmethod(lambda _: "Fake board")
class version:
    cuda = "13.0"
END
cat > "$pack/peers/peft_update.py" << 'END'
import json, time
time.sleep(1.2)
print(json.dumps({"steps": 200, "base_loss": 0.69, "new_loss": 0.41, "delta": 0.28, "accuracy": 0.8,
    "peak_device_bytes": 1, "seconds": {"imports": 0.5, "train": 0.7}}))
END
cat > "$pack/peers/peft_rates.py" << 'END'
import json, sys
at = sys.argv.index("--batch") + 1
sizes = [size for size in sys.argv[at:] if size.isdigit()]
rate = 100 if "--pretokenised" in sys.argv else 80
by_batch = {size: {"train": {"samples_per_second": rate * int(size)}} for size in sizes}
best = max(sizes, key=int)
print(json.dumps({"by_batch": by_batch, "train_samples_per_second": rate * int(best),
    "train_batch": int(best), "eval_samples_per_second": 1000.0,
    "eval_sorted_samples_per_second": 2000.0, "train_joules_per_sample": None}))
END
cat > "$work/tools/nvidia-smi" << 'END'
#!/usr/bin/env bash
case $* in
    *--query-gpu=*) echo 'Fake board, 580.00, 1000, 300.00, 9.0, 1980, Enabled, [N/A], GPU-fake' ;;
    *) echo '| NVIDIA-SMI 580.00   Driver Version: 580.00   CUDA Version: 13.0 |' ;;
esac
END
chmod +x "$pack"/bin/* "$work/tools/nvidia-smi"
cc -shared -fPIC -o "$work/tools/libnvidia-ml.so.1" "$root/tests/fixtures/fake_nvml.c"

report=$work/report.txt
run() { # FOLDER, options
    env PATH="$work/tools:$PATH" LD_LIBRARY_PATH="$work/tools" PYTHONPATH="$work/python" \
        FAKE_BUILT="$work/built/here" FAKE_SHIPPED="$root/pipelines/sentiment.toml" "${extra[@]}" "$pack/gpu/run.sh" "$@" --out "$work/out" \
        > "$report" 2> "$work/errors" && code=0 || code=$?
}
must() { # a line of the report, as a pattern
    grep -qE -- "$1" "$report" || {
        printf 'check: no line like %s in\n' "$1" >&2
        cat "$report" "$work/errors" "$work/out/logs.txt" >&2
        exit 1
    }
}
ended() {
    [ "$code" = "$1" ] || {
        printf 'check: exit code %s, not %s\n' "$code" "$1" >&2
        cat "$report" "$work/errors" "$work/out/logs.txt" >&2
        exit 1
    }
}

extra=(true=)
run "$pack" --minutes 2
ended 0
must 'card +Fake board, 1000 MiB, compute 9.0'
must 'counter +energy counter, 1[0-9]{2}\.[0-9] W idle'
must 'from start to end +s +[0-9.]+ +0\.[0-9] +1\.[0-9] +[0-9.]+ +4\.0  (met|missed)'
must 'joules of the card +J +[0-9]+ +[0-9]+ +[0-9]+'
must 'delta / joule of the card .* 2\.0  (met|missed)'
must 'autotune left 0 KiB in cache/cubecl/default.db'
must '^  training, bf16 +51200 +512 +40960 +512 +1\.25 +1\.2  met$'
must '^  training, bf16, peer tokenised +51200 +512 +51200 +512 +1\.00$'
must 'the recipe that ships, [0-9]+ steps: .* better than the peer by [0-9.]+$'
must 'training, by batch size +32 +64 +128 +256 +512'
must 'bf16  adapters differ by [0-9.e-]+ at most'
must 'f32   the same adapter, byte for byte'
must 'device tests: 2 passed, 0 failed'
must '^  gate loss 0.1 on the CPU, 0.2 in bf16$'
[ ! -e "$work/built" ] || { echo 'check: links for the tests were left behind' >&2; exit 1; }

extra=(FAKE_RATES=slow FAKE_IT=fail FAKE_NO_CUDA=1 CUBECL_AUTOTUNE_LEVEL=full)
run "$pack" --minutes 2 --only machine peer_update card_tests rates_bf16
ended 1
must 'peer, *$|update, peer +skipped .* torch 9.9 sees no card'
must 'device tests +failed .* 1 of 2 failed: card::twice'
must 'rates, bf16 +done'
must 'all sizes: not done after'
must 'set +CUBECL_AUTOTUNE_LEVEL=full'

extra=(FAKE_CRYO=panic)
run "$pack" --minutes 1 --only update_cold determinism
ended 1
must 'update, first run +failed .*exit code 1.*the device is gone'

# On the way: one part in several pieces, the other in one; then one piece is missing.
mkdir -p "$work/parts"
(
    cd "$pack"
    tar cf - bin pack.json cryo.toml data gpu peers pipelines tests | xz | split -b 4K -d -a 2 - "$work/parts/binary.tar.xz."
    tar cf - model | xz | split -b 1M -d -a 2 - "$work/parts/model.tar.xz."
    cd "$work/parts"
    sha256sum binary.tar.xz.* > binary.sha256
    sha256sum model.tar.xz.* > model.sha256
)
extra=(true=)
run "$work/parts" --minutes 1 --only machine update_warm
ended 0
must 'update, second run +done'
rm "$work/parts/binary.tar.xz.01"
run "$work/parts" --minutes 1 --only machine
ended 2
grep -q 'names binary.tar.xz.01, which is not in' "$work/errors"
echo 'check: all as it should be'
