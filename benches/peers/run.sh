#!/usr/bin/env bash
# cryo and what people use otherwise, side by side. The first run fetches PyTorch (several GB) into
# a virtual environment beside the model cache.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cryoflux"
venv="${CRYOFLUX_PEER_VENV:-$cache/peer}"
cd "$root"

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
# The list is kept beside what was installed from it, so that a newer list is noticed.
if ! cmp -s benches/peers/requirements.txt "$venv/requirements.txt"; then
    "$venv/bin/pip" install --quiet -r benches/peers/requirements.txt
    cp benches/peers/requirements.txt "$venv/requirements.txt"
fi
scripts/cargo.sh build --release --locked
target="$(cargo metadata --no-deps --format-version 1 | "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
# Only cargo knows the name of a bench's executable.
rates="$(scripts/cargo.sh bench --no-run --locked --bench rates --message-format=json-render-diagnostics | "$venv/bin/python" -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] == "rates":
        print(message["executable"])
')"
"$target/release/cryo" model pull minilm
exec "$venv/bin/python" benches/peers/compare.py --cryo "$target/release/cryo" --rates "$rates" "$@"
