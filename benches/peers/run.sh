#!/usr/bin/env bash
# cryo and a plain PEFT + PyTorch loop, the same update, side by side. The first run fetches
# PyTorch (several GB) into a virtual environment beside the model cache.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cryoflux"
venv="${CRYOFLUX_PEER_VENV:-$cache/peer}"
cd "$root"

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r benches/peers/requirements.txt
fi
cargo build --release --locked
target="$(cargo metadata --no-deps --format-version 1 | "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
"$target/release/cryo" model pull minilm
exec "$venv/bin/python" benches/peers/compare.py --cryo "$target/release/cryo" "$@"
