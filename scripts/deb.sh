#!/usr/bin/env bash
# Packs what `cargo build --release` made into a Debian package in dist/:
#
#     scripts/deb.sh [--check]
#
# --check   also unpacks it elsewhere and runs the program from there
#
# Needs dpkg-deb and objdump.
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)

root=$target/deb/root
rm -rf "$root"
mkdir -p "$root/DEBIAN"
scripts/stage.sh "$root/usr"
gzip -9n "$root"/usr/share/man/man1/*.1
mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"

# The newest version of a symbol that the program or its library asks for.
newest() {
    objdump -T "$root/usr/bin/cryo" "$root"/usr/lib/cryoflux/*.so 2>/dev/null |
        grep -o "$1[0-9.]*" | sort -uV | tail -1 | sed "s/$1//"
}
cat >"$root/DEBIAN/control" <<CONTROL
Package: cryoflux
Version: $version
Architecture: $architecture
Maintainer: The CryoFlux developers <cryoflux@localhost>
Depends: libc6 (>= $(newest GLIBC_)), libgcc-s1, libstdc++6
Recommends: python3-pip
Section: science
Priority: optional
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Description: meters energy, spends it on learning, and proves what it bought
 cryo keeps models current on an energy allowance: it meters joules, spends them
 on fine-tuning, judges each update on data that it never saw, and records every
 decision in a signed receipt.
CONTROL
mkdir -p dist
dpkg-deb --root-owner-group --build "$root" "dist/cryoflux_${version}_$architecture.deb"

[ "${1:-}" = --check ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "dist/cryoflux_${version}_$architecture.deb" "$work"
"$work/usr/bin/cryo" --version
cp -r cryo.toml pipelines data "$work/"
"$work/usr/bin/cryo" --project "$work" validate
# A first answer, from DuckDB's library too: the index of a small example.
cp -r examples "$work/"
"$work/usr/bin/cryo" --project "$work" apply "$work/examples/index-only.toml"
"$work/usr/bin/cryo" --project "$work" search 'a trip by boat'
