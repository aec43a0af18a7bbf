#!/usr/bin/env bash
# Finds or fetches DuckDB's library, so that its C++ need not be compiled, which takes 25 minutes
# on two cores. Prints the folder of the library, for DUCKDB_LIB_DIR. Prints nothing when only the
# C++ sources are left, or when the system's own library needs no folder.
#
#   CRYOFLUX_DUCKDB   which ways to try, in this order (default: "here official npm sources")
#     here       a library that is there: DUCKDB_LIB_DIR, pkg-config, or fetched before
#     official   the archive of DuckDB's release page, by curl
#     npm        the package @duckdb/node-bindings-*, which holds the same library, by npm
#     sources    nothing is fetched; the crate compiles the C++ that it brings
#
# Exit codes: 0 found (or sources), 1 no way worked.
set -euo pipefail

version=1.5.6
# SHA-256 of the library itself, which is the same in the archive and in the package.
case "$(uname -s)-$(uname -m)" in
Linux-x86_64)
    archive=linux-amd64 package=linux-x64 library=libduckdb.so
    digest=3f4962cdd266eab2b479a5b5a4a6d063d279b2954ae814ed00385d553b747633 ;;
Linux-aarch64 | Linux-arm64)
    archive=linux-arm64 package=linux-arm64 library=libduckdb.so
    digest=23686593dba4ec22c6e581bb1c843b3964e84c4bc4d0063d8b4daddd2e20e30a ;;
Darwin-*)
    archive=osx-universal package=darwin-arm64 library=libduckdb.dylib
    digest=75a519cb914ae36ca22cff0995a8a2e8c9a46990b8c0a479514f741a0d93f344 ;;
MINGW*-x86_64 | MSYS*-x86_64)
    # The package lacks the import library that the linker wants.
    archive=windows-amd64 package='' library=duckdb.dll
    digest=7e90bdef028d57b45490d6f53530e3c012a5d9abdc4c6723449200663dc84ed0 ;;
*)
    archive='' package='' library=libduckdb.so digest='' ;;
esac
kept="${XDG_CACHE_HOME:-$HOME/.cache}/cryoflux/duckdb/$version-${archive:-other}"

say() { printf 'DuckDB: %s\n' "$*" >&2; }

is_right() {
    local found
    [ -f "$1" ] || return 1
    found=$({ sha256sum "$1" 2>/dev/null || shasum -a 256 "$1"; } | cut -d' ' -f1)
    [ "$found" = "$digest" ]
}

# A folder whose library was checked becomes the kept one, whole or not at all.
keep() {
    if ! is_right "$1/$library"; then
        say "the $library of $2 does not have the expected digest; it is not used"
        return 1
    fi
    chmod 755 "$1"
    # Somebody else may have been faster; anything else there is a fetch of ours that went wrong.
    if ! is_right "$kept/$library"; then
        rm -rf "$kept"
        mv "$1" "$kept" && is_right "$kept/$library" || return 1
    fi
    say "$library $version from $2, digest checked, in $((SECONDS - started)) s"
    printf '%s\n' "$kept"
}

# An empty folder beside the kept one, so that the library moves there in one step.
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
fresh() {
    [ -z "$work" ] || rm -rf "$work"
    mkdir -p "$(dirname "$kept")" && work=$(mktemp -d "$kept.XXXXXX") && [ -d "$work" ]
}

here() {
    if [ -n "${DUCKDB_LIB_DIR:-}" ]; then
        if [ ! -f "$DUCKDB_LIB_DIR/$library" ]; then
            say "DUCKDB_LIB_DIR=$DUCKDB_LIB_DIR has no $library"
            return 1
        fi
        say "using $DUCKDB_LIB_DIR/$library, as DUCKDB_LIB_DIR says"
        printf '%s\n' "$DUCKDB_LIB_DIR"
    elif [ -n "$digest" ] && [ -f "$kept/$library" ]; then
        if ! is_right "$kept/$library"; then
            say "$kept/$library is damaged; it is fetched anew"
            rm -rf "$kept"
            return 1
        fi
        say "using $kept/$library"
        printf '%s\n' "$kept"
    elif pkg-config --exact-version=$version duckdb 2>/dev/null; then
        say "using the system's library $version, as pkg-config says"
        pkg-config --variable=libdir duckdb
    else
        return 1
    fi
}

official() {
    [ -n "$archive" ] && command -v curl >/dev/null || return 1
    local url="https://github.com/duckdb/duckdb/releases/download/v$version/libduckdb-$archive.zip"
    say "fetching $url"
    fresh || return 1
    curl -fsSL --connect-timeout 10 --max-time 300 -o "$work/duckdb.zip" "$url" || return 1
    mkdir "$work/lib" || return 1
    { unzip -q "$work/duckdb.zip" -d "$work/lib" || tar -xf "$work/duckdb.zip" -C "$work/lib"; } || return 1
    keep "$work/lib" "the official archive"
}

npm_package() {
    [ -n "$package" ] && command -v npm >/dev/null || return 1
    say "fetching the npm package @duckdb/node-bindings-$package"
    fresh || return 1
    (cd "$work" && npm pack --silent "@duckdb/node-bindings-$package@$version-r.1" >/dev/null) || return 1
    tar -xzf "$work"/*.tgz -C "$work" || return 1
    mkdir "$work/lib" || return 1
    mv "$work/package/$library" "$work/package/LICENSE" "$work/lib/" || return 1
    keep "$work/lib" "the npm package"
}

started=$SECONDS
for way in ${CRYOFLUX_DUCKDB:-here official npm sources}; do
    case "$way" in
    here) here && exit 0 ;;
    official) official && exit 0 || say "the official archive cannot be used here" ;;
    npm) npm_package && exit 0 || say "the npm package cannot be used here" ;;
    sources)
        say "compiling its C++ sources, which takes about 25 minutes on two cores, once"
        exit 0 ;;
    *) say "CRYOFLUX_DUCKDB: \`$way\` is none of here, official, npm, sources"; exit 1 ;;
    esac
done
say "none of these ways worked: ${CRYOFLUX_DUCKDB:-}"
exit 1
