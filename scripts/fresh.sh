#!/usr/bin/env bash
# Does what a newcomer does, from nothing: clones into an empty folder, with empty caches, and
# types the commands of the README's first code block, word for word. Prints the minutes of each.
#
#     scripts/fresh.sh [--limit MINUTES] [--sources]
#
#     --limit     fails when a command takes longer (default 10)
#     --sources   forbids the fast ways: DuckDB's C++ is compiled (then give --limit 60)
#
# Needs git, and about 6 GB in TMPDIR. What it made is removed at the end.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
limit=10
while [ $# -gt 0 ]; do
    case "$1" in
    --limit) limit=$2; shift 2 ;;
    --sources) export CRYOFLUX_DUCKDB=sources; shift ;;
    *) echo 'usage: fresh.sh [--limit MINUTES] [--sources]' >&2; exit 2 ;;
    esac
done

origin=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_HOME=$work/cargo XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config \
    HF_HOME=$work/huggingface PIP_CACHE_DIR=$work/pip npm_config_cache=$work/npm
unset CARGO_TARGET_DIR CRYOFLUX_TARGET_DIR DUCKDB_LIB_DIR

git clone --quiet "$origin" "$work/cryoflux"
cd "$work/cryoflux"
# The first block, without the clone and without comments.
mapfile -t commands < <(awk '/^```/ { if (inside) exit; inside = 1; next } inside' README.md |
    sed 's/ *#.*//' | grep -vE '^(git clone|cd) |^$')
[ "${#commands[@]}" -gt 0 ] || { echo 'fresh: the README has no code block' >&2; exit 1; }
failed=0
for command in "${commands[@]}"; do
    echo "== $command"
    begun=$SECONDS
    timeout $((limit * 60)) bash -c "$command" && outcome=done || outcome="FAILED or over $limit minutes"
    took=$((SECONDS - begun))
    summary+=$(printf '%4d min %02d s  %s  %s' $((took / 60)) $((took % 60)) "$outcome" "$command")$'\n'
    [ "$outcome" = done ] || { failed=1; break; }
done
printf '\n%s' "$summary"
exit $failed
