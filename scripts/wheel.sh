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
unset CDPATH
cd "$(dirname "$0")/.."
root=$PWD
mkdir -p "${CARGO_TARGET_DIR:-target}/wheel"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
work=$(mktemp -d)
# maturin wants a folder of this name beside its configuration file.
trap 'rm -rf "$work" "$root/cryoflux.data"' EXIT

# What goes beside the program; the program itself is put in by maturin.
data=$target/wheel/cryoflux.data
rm -rf "$data"
scripts/stage.sh "$data/data"
rm -r "$data/data/bin"
ln -sfn "$data" cryoflux.data

tools=$target/wheel/tools
[ -x "$tools/bin/maturin" ] || {
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
}
# As the program was built, so that it is not built again.
folder=$(scripts/duckdb.sh)
features=()
if [ -n "$folder" ]; then
    export DUCKDB_LIB_DIR=$folder
    features=(--no-default-features)
fi
"$tools/bin/maturin" build --release --locked ${features[@]+"${features[@]}"} \
    --auditwheel skip --compatibility "${WHEEL_TAG:-linux}" --out "$work/dist"
mkdir -p dist
rm -f dist/cryoflux-*.whl
mv "$work"/dist/cryoflux-*.whl dist/
ls -l dist/cryoflux-*.whl

[ "${1:-}" = --check ] || exit 0
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dist/cryoflux-*.whl
mkdir "$work/project" "$work/elsewhere"
cp -r cryo.toml pipelines data "$work/project/"
cd "$work/elsewhere"
"$work/venv/bin/cryo" --version
"$work/venv/bin/cryo" apply "$work/project/pipelines/sentiment.toml"
"$work/venv/bin/cryo" --project "$work/project" verify
[ -z "$(ls -A)" ] || { echo 'wheel: a run left files in the folder that it was started in' >&2; exit 1; }
