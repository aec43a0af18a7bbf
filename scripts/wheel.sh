#!/usr/bin/env bash
# Packs what `cargo build --release` made into a Python wheel in dist/:
#
#     scripts/wheel.sh [--check]
#
# --check   also installs it into a fresh environment, and runs the shipped pipeline with it in a
#           copy of the project, from another folder
#
# Needs python3 with venv. maturin comes from PyPI, into an environment of its own.
# WHEEL_TAG   the platform that the wheel says it runs on (default: this one, "linux")
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

# What goes beside the program; the program itself is put in by maturin.
data=$target/wheel/cryoflux.data
rm -rf "$data"
scripts/stage.sh "$data/data"
rm -r "$data/data/bin"

tools=$target/wheel/tools
[ -x "$tools/bin/maturin" ] || {
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
}
# maturin wants to know the folder from its own configuration file.
ln -sfn "$(cd "$data" && pwd)" cryoflux.data
trap 'rm -f cryoflux.data' EXIT
mkdir -p dist
rm -f dist/cryoflux-*.whl
bundled=--no-default-features
[ -f "$target/release/libduckdb.so" ] || [ -f "$target/release/libduckdb.dylib" ] || bundled=
folder=$(scripts/duckdb.sh)
DUCKDB_LIB_DIR=$folder "$tools/bin/maturin" build --release --locked $bundled \
    --auditwheel skip --compatibility "${WHEEL_TAG:-linux}" --out dist
ls -l dist/cryoflux-*.whl

[ "${1:-}" = --check ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work" cryoflux.data' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dist/cryoflux-*.whl
mkdir "$work/project" "$work/elsewhere"
cp -r cryo.toml pipelines data "$work/project/"
cd "$work/elsewhere"
"$work/venv/bin/cryo" --version
"$work/venv/bin/cryo" apply "$work/project/pipelines/sentiment.toml"
"$work/venv/bin/cryo" --project "$work/project" verify
[ -z "$(ls -A)" ] || { echo 'wheel: a run left files in the folder that it was started in' >&2; exit 1; }
