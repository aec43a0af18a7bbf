#!/usr/bin/env bash
# Builds and packs what run.sh needs on a machine with a card, into one folder.
#
#     benches/gpu/pack.sh [--part binary|model] [--into FOLDER] [--piece MIB] [--no-build]
#
# Without --part the folder (target-of-pack, unless --into names another) holds everything: carry it
# over and call its gpu/run.sh. With --part it holds, below parts/, one part as an archive in pieces of
# at most 60 MiB (or --piece): `binary` is the programs, data and scripts, `model` the base model. Carry
# the pieces over one by one, collect them in one folder there and give that folder to run.sh.
#
# --no-build packs programs that were built before. The build needs LLVM, see scripts/cuda-llvm.sh;
# packing needs python3, strip, tar and xz;
# an archive of the programs takes some minutes and 2 GB of memory.
# Exit code: 0 packed, 1 something is missing.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="${CRYOFLUX_ROOT:-$(cd "$here/../.." && pwd)}"
part=all into="$root/target-of-pack" piece=60 build=yes features=cuda

stop() {
    echo "pack: $1" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --part) part=${2:-} && shift ;;
        --into) into=${2:-} && shift ;;
        --piece) piece=${2:-} && shift ;;
        --no-build) build=no ;;
        *) stop "unknown option $1" ;;
    esac
    shift
done
case $part in all | binary | model) ;; *) stop "--part is binary or model, not \`$part'" ;; esac
[[ $piece =~ ^[1-9][0-9]*$ ]] || stop "--piece is a number of MiB, not \`$piece'"
[ -n "$into" ] || stop '--into needs a folder'
cd "$root"

# Only cargo knows where it puts an executable, and a bench's and a test's has a digest in its name.
built() {
    local name=$1
    shift
    cargo "$@" --locked --features "$features" --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
found = None
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] == sys.argv[1]:
        found = message["executable"] or found
sys.exit(f"pack: cargo built no {sys.argv[1]}") if found is None else print(found)
' "$name"
}

pack_binary() {
    mkdir -p "$into"/{bin,data,gpu,peers,pipelines,tests}
    if [ "$build" = yes ]; then
        local cryo rates it
        cryo=$(built cryo build --release --bin cryo)
        rates=$(built rates bench --no-run --bench rates)
        it=$(built it test --no-run --release --test it)
        install -m 755 "$cryo" "$into/bin/cryo"
        install -m 755 "$rates" "$into/bin/rates"
        install -m 755 "$it" "$into/bin/it"
        strip "$into"/bin/{cryo,rates,it}
        python3 - "$root" "$cryo" "$features" > "$into/pack.json" << 'END'
import json, subprocess, sys

def said(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

root, program, features = sys.argv[1:]
changed = " with changes" if said("git", "status", "--porcelain", "--untracked-files=no") else ""
print(json.dumps({
    "commit": said("git", "rev-parse", "--short", "HEAD") + changed,
    "rustc": said("rustc", "--version"),
    "features": features,
    # The tests look for their fixtures and for the program where they were built.
    "source": root,
    "program": program,
}, indent=1))
END
    fi
    for name in bin/cryo bin/rates bin/it pack.json; do
        [ -e "$into/$name" ] || stop "$into/$name is not there: pack once without --no-build"
    done
    cp cryo.toml "$into/"
    cp data/reviews-*.csv "$into/data/"
    cp pipelines/*.toml "$into/pipelines/"
    cp benches/peers/peft_update.py benches/peers/peft_rates.py "$into/peers/"
    cp "$here"/*.py "$here/run.sh" "$into/gpu/"
    rm -rf "$into/tests/fixtures"
    cp -RL tests/fixtures "$into/tests/fixtures"
}

pack_model() {
    local digest model name
    # The first digest of the section is that of the weights, and the folder's name starts with it.
    digest=$(sed -n '/^\[models.minilm\]/,/^\[/s/^sha256 *= *"\([0-9a-f]\{64\}\)".*/\1/p' cryo.toml)
    model=$(echo "${XDG_CACHE_HOME:-$HOME/.cache}/cryoflux/models/$digest"-*)
    # Also where several projects have fetched it.
    model=${model%% *}
    [ -f "$model/model.safetensors" ] || stop "$model is not there: cryo model pull minilm"
    mkdir -p "$into/model"
    for name in config.json model.safetensors tokenizer.json tokenizer_config.json \
        special_tokens_map.json vocab.txt sentence_bert_config.json; do
        if [ -e "$model/$name" ]; then
            cp -f "$model/$name" "$into/model/"
        fi
    done
}

# One archive in pieces, with a list of their digests, which run.sh checks before it unpacks them.
archive() {
    local name=$1 preset=$2
    shift 2
    mkdir -p "$into/parts"
    rm -f "$into/parts/$name".*
    tar -C "$into" --owner=0 --group=0 --numeric-owner -cf - "$@" |
        xz -T1 --lzma2="$preset" -c |
        split -b "${piece}M" -d -a 2 - "$into/parts/$name.tar.xz."
    (cd "$into/parts" && sha256sum "$name".tar.xz.* > "$name.sha256")
}

[ "$part" = model ] || pack_binary
[ "$part" = binary ] || pack_model
# What is packed is no part of the repository.
echo '*' > "$into/.gitignore"
case $part in
    all) du -shL "$into/bin" "$into/model" "$into" ;;
    # The three programs hold the same libraries: a dictionary as long as one of them finds the
    # second and the third in the first.
    binary)
        archive binary preset=6,dict=256MiB bin/cryo bin/it bin/rates pack.json cryo.toml data gpu \
            peers pipelines tests
        du -shL "$into"/parts/binary.*
        ;;
    # Weights hardly pack.
    model)
        archive model preset=1 model
        du -shL "$into"/parts/model.*
        ;;
esac
