#!/usr/bin/env bash
# Makes the test vector of docs/receipt-format.md: two chained receipts, signed with a published key.
#
#     tests/vectors/make_vector.sh [FOLDER]     by default the folder of this script
#
# Needs bash, jq 1.6 or newer, OpenSSL 3, base64, sed and seq. Every run writes the same bytes.
set -euo pipefail
export LC_ALL=C

folder=${1:-$(cd "$(dirname "$0")" && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The secret key of RFC 8032, section 7.1, test 1. Everybody knows it: trust no receipt that it signs.
seed=9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60

# Bytes from hex digits.
bytes() { printf "$(printf %s "$1" | sed 's/../\\x&/g')"; }
# SHA-256 of standard input, as hex digits.
sha256() { openssl dgst -sha256 -r | cut -c 1-64; }

bytes "302e020100300506032b657004220420$seed" > "$work/key.der"
openssl pkey -inform DER -in "$work/key.der" -pubout -out "$work/public.pem"
keyid=$(openssl pkey -pubin -in "$work/public.pem" -outform DER | tail -c 32 | sha256 | cut -c 1-16)

# The holdout key: 32 bytes of 01. Three rows, each class number, text and token ids. A leaf is salted with its place.
holdout_key=$(printf '01%.0s' $(seq 32))
salt_id=$({ printf 'cryoflux holdout key id 1'; bytes "$holdout_key"; } | sha256 | cut -c 1-16)
salt=$({ printf 'cryoflux holdout salt 2'; bytes "$holdout_key"; } | sha256)
row() { { bytes "${1}00000000000000"; printf %s "$2"; } | sha256; }
by_text() { { printf 'cryoflux text 1'; bytes "$salt"; printf %s "$1"; } | sha256; }
by_tokens() { { printf 'cryoflux tokens 1'; bytes "$salt"; bytes "$1"; } | sha256; }
leaf() { # PLACE ROW BY_TEXT BY_TOKENS
    local leaf_salt
    leaf_salt=$({ bytes "$salt"; bytes "000000000000000$1"; } | sha256)
    bytes "00$leaf_salt$2$3$4" | sha256
}
node() { bytes "01$1$2" | sha256; }
tree() { node "$(node "$1" "$2")" "$3"; }
none=$(printf '00%.0s' $(seq 32))
first=$(leaf 0 "$(row 00 'What  time is it?')" "$(by_text 'what time is it?')" "$(by_tokens 65000000f40700000308000066000000)")
second=$(leaf 1 "$(row 01 'It is late.')" "$(by_text 'it is late.')" "$(by_tokens 65000000ca07000066000000)")
third=$(leaf 2 "$(row 02 'Please go home.')" "$(by_text 'please go home.')" "$none")
root=$(tree "$first" "$second" "$third")

# Their losses as doubles: 0.5 and 0.25, 1 and 0.75, 2 and 3.
with_losses() { bytes "00$1$2$3" | sha256; }
losses_root=$(tree \
    "$(with_losses "$first" 3fe0000000000000 3fd0000000000000)" \
    "$(with_losses "$second" 3ff0000000000000 3fe8000000000000)" \
    "$(with_losses "$third" 4000000000000000 4008000000000000)")

baseline='{"block_ms":0,"blocks":0,"idle":[{"probe":"own-time","sigma_watts":0,"spread_watts":0,"watts":0}],"label":"not-needed","learned":"2026-11-23T07:00:00.000Z","state":"bare"}'
zeros=sha256:$none

# What both receipts say alike. The letter after "vector-" is not ASCII, on purpose.
common='{
    accepted: false,
    base_model_hash: "sha256:570fae29afcbe3f9e9b91d77a32bb668a9ca6905d4e1b7ce1bd828aecfa5eddd",
    env: {backend: "kernels", cryo: "0.1.0", device: "Example CPU, 2 threads", precision: "f32"},
    format: 1,
    node: $node,
    pipeline: "vector-\u00e9",
    prev_receipt_hash: $prev,
    task_kind: "lora",
    task_name: "example"
}'
deferred='{
    joules_spent: "0.000000",
    kind: "deferred",
    reason: "budget is 8000 J, the bucket holds 412 J; affordable at 2026-11-23 07:26 UTC",
    seq: 0,
    task_id: "01M83KAFZ00000000000000000",
    timestamp: "2026-11-23T07:01:00.000Z"
}'
aborted='{
    energy: {
        baseline_hash: $baseline,
        baseline_label: "not-needed",
        baseline_state: "bare",
        bucket_joules: "9280.625000",
        duration_ms: 2875,
        joules_gross: "131.375000",
        joules_idle: "0.000000",
        joules_overshoot: "0.000000",
        joules_reserved: "8000.000000",
        joules_reserved_eval: "1240.000000",
        joules_sigma: "65.687500",
        meter: "own-time",
        model: {origin: "guess", processor_watts: "3"},
        paid_by: "project",
        provenance: "modelled",
        sigma: {baseline: "0.000000", edge: "0.000000", gain: "65.687500", gap: "0.000000"},
        unmeasured_ms: 0,
        updates: 28
    },
    holdout: {
        custody: "local",
        id: "data/gate.csv",
        leakage: {checked: "nfkc-lowercase-whitespace-visible/2", exact: 0},
        repeats: 0,
        root: $root,
        salt_id: $salt_id
    },
    joules_eval: "0.125000",
    joules_spent: "131.375000",
    joules_train: "131.250000",
    kind: "aborted",
    reason: "interrupted after training step 3",
    seq: 1,
    task_id: "01M83N1DS00000000000000000",
    timestamp: "2026-11-23T07:31:02.875Z",
    train: {
        attempt: 0,
        config_hash: "sha256:c957b4fcb36edae371cd0c04eae8ab6821ad27e699079d00e7664741419d40d1",
        examples: 96,
        seed: 42,
        steps: 3,
        stopped: "interrupted"
    }
}'

# payload OWN_MEMBERS PREVIOUS_HASH: the canonical statement, in a file
payload() {
    jq -ncSj --arg node "$keyid" --arg prev "$2" --arg root "sha256:$root" --arg salt_id "$salt_id" \
        --arg baseline "sha256:$(printf %s "$baseline" | sha256)" "{
            _type: \"https://in-toto.io/Statement/v1\",
            predicate: ($common + $1),
            predicateType: \"https://cryoflux.dev/receipt/v1\",
            subject: []
        }" > "$work/payload"
}

# seal: the envelope of the payload, as one line
seal() {
    local type=application/vnd.in-toto+json
    { printf 'DSSEv1 %d %s %d ' ${#type} "$type" "$(wc -c < "$work/payload")"; cat "$work/payload"; } > "$work/pae"
    openssl pkeyutl -sign -inkey "$work/key.der" -keyform DER -rawin -in "$work/pae" -out "$work/sig"
    printf '{"payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}\n' \
        "$(base64 < "$work/payload" | tr -d '\n')" "$type" "$keyid" "$(base64 < "$work/sig" | tr -d '\n')"
}

payload "$deferred" "$zeros"
hash_0=sha256:$(sha256 < "$work/payload")
seal > "$work/receipts.jsonl"
payload "$aborted" "$hash_0"
hash_1=sha256:$(sha256 < "$work/payload")
seal >> "$work/receipts.jsonl"

mkdir -p "$folder/keys"
cp "$work/public.pem" "$folder/keys/$keyid.pem"
cp "$work/receipts.jsonl" "$folder/receipts.jsonl"
cat > "$folder/expected.txt" <<END
receipt_hash 0 $hash_0
receipt_hash 1 $hash_1
keyid          $keyid
salt_id        $salt_id
holdout_salt   sha256:$salt
holdout_root   sha256:$root
losses_root    sha256:$losses_root
END
