#!/usr/bin/env bash
# cargo with DuckDB's library linked where one can be had (scripts/duckdb.sh), else with its C++
# compiled in. All arguments are cargo's: scripts/cargo.sh test --release
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo 'usage: cargo.sh SUBCOMMAND [ARGUMENT ...], all of them for cargo' >&2; exit 2; }
folder=$(scripts/duckdb.sh)
subcommand=$1
shift
if [ -n "$folder" ]; then
    export DUCKDB_LIB_DIR=$folder
    exec cargo "$subcommand" --no-default-features "$@"
fi
exec cargo "$subcommand" "$@"
