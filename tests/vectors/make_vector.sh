#!/usr/bin/env bash
# Makes the test vector of docs/receipt-format.md: two chained receipts, signed with a published key.
#
#     tests/vectors/make_vector.sh [FOLDER]     by default the folder of this script
#
# Needs bash, jq 1.6 or newer, OpenSSL 3, base64 and sed. Every run writes the same bytes.
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

# The holdout: three rows, class number and text. A leaf is salted with the row's place.
salt=$({ printf 'cryoflux holdout salt 1'; bytes "$seed"; } | sha256)
row() { { bytes "${1}00000000000000"; printf %s "$2"; } | sha256; }
leaf() {
    local leaf_salt
    leaf_salt=$({ bytes "$salt"; bytes "000000000000000$1"; } | sha256)
    bytes "00$leaf_salt$2" | sha256
}
node() { bytes "01$1$2" | sha256; }
first=$(leaf 0 "$(row 00 'What time is it?')")
second=$(leaf 1 "$(row 01 'It is late.')")
third=$(leaf 2 "$(row 02 'Please go home.')")
root=$(node "$(node "$first" "$second")" "$third")

baseline='{"blocks":12,"idle":[{"probe":"cpu-model","sigma_watts":0,"watts":0}],"label":"short","learned":"2026-11-23T07:00:00.000Z","state":"bare"}'
zeros=sha256:0000000000000000000000000000000000000000000000000000000000000000

# What both receipts say alike. The letter after "vector-" is not ASCII, on purpose.
common='{
    accepted: false,
    base_model_hash: "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    env: {backend: "burn-flex", cryo: "0.1.0", device: "Example CPU, 2 threads", precision: "f32"},
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
        baseline_label: "short",
        bucket_joules: "9280.625000",
        duration_ms: 2875,
        joules_gross: "131.375000",
        joules_idle: "0.000000",
        joules_reserved: "8000.000000",
        joules_sigma: "65.687500",
        meter: "cpu-model",
        provenance: "modelled",
        unmeasured_ms: 0
    },
    holdout: {
        custody: "local",
        id: "data/gate.csv",
        leakage: {checked: "lowercase-whitespace/1", exact: 0},
        root: $root
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
        config_hash: $zeros,
        data_root: $zeros,
        examples: 96,
        seed: 42,
        steps: 3,
        stopped: "interrupted"
    }
}'

# payload OWN_MEMBERS PREVIOUS_HASH: the canonical statement, in a file
payload() {
    jq -ncSj --arg node "$keyid" --arg prev "$2" --arg zeros "$zeros" --arg root "sha256:$root" \
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
holdout_salt   sha256:$salt
holdout_root   sha256:$root
END
