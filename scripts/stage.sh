#!/usr/bin/env bash
# Puts what `cargo build --release` made into a folder, as an installation has it:
#
#     scripts/stage.sh PREFIX
#
#     PREFIX/bin/cryo                      the program
#     PREFIX/lib/cryoflux/libduckdb.so     DuckDB's library, where it is not inside the program
#     PREFIX/share/man, bash-completion, zsh, fish, doc
#
# The program finds its library from where it lies, so PREFIX may be moved.
set -euo pipefail
unset CDPATH
[ $# -eq 1 ] || { echo 'usage: stage.sh PREFIX' >&2; exit 2; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
built=${CARGO_TARGET_DIR:-target}/release

put() { # MODE FROM TO
    mkdir -p "$(dirname "$3")"
    install -m "$1" "$2" "$3"
}

put 755 "$built/cryo" "$prefix/bin/cryo"
for library in "$built"/libduckdb.so "$built"/libduckdb.dylib; do
    [ ! -f "$library" ] || put 644 "$library" "$prefix/lib/cryoflux/$(basename "$library")"
done
put 644 LICENSES/DuckDB.txt "$prefix/share/doc/cryoflux/DuckDB.txt"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$prefix/bin/cryo" man "$work/man" >/dev/null
for page in "$work"/man/*.1; do
    put 644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
for shell in bash zsh fish; do
    "$prefix/bin/cryo" completions $shell >"$work/$shell"
done
put 644 "$work/bash" "$prefix/share/bash-completion/completions/cryo"
put 644 "$work/zsh" "$prefix/share/zsh/site-functions/_cryo"
put 644 "$work/fish" "$prefix/share/fish/vendor_completions.d/cryo.fish"
put 644 LICENSE "$prefix/share/doc/cryoflux/copyright"
