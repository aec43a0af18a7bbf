#!/usr/bin/env bash
# Checks a chain of receipts without cryo.
#
#     scripts/check-receipts.sh FOLDER     FOLDER holds receipts.jsonl and keys/*.pem
#
# Prints one line per good receipt: seq, receipt_hash, ok. Stops at the first bad one and names it.
# Needs bash, jq 1.6 or newer, OpenSSL 3, sha256sum, base64, and cmp, split and tail.
# Exit code: 0 all good, 1 a receipt is bad, 2 the check could not be done.
# docs/receipt-format.md describes what is checked here.
set -euo pipefail
export LC_ALL=C

cannot() {
    printf 'check-receipts: %s\n' "$1" >&2
    exit 2
}

[ $# -eq 1 ] || cannot 'usage: check-receipts.sh FOLDER'
folder=$1
chain=$folder/receipts.jsonl
for tool in jq openssl sha256sum base64 cmp split tail; do
    command -v "$tool" > /dev/null || cannot "$tool is not installed"
done
[ -r "$chain" ] || cannot "$chain cannot be read"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The trusted keys, each under the id that follows from its bytes; a file's own name counts for nothing.
mkdir "$work/keys" "$work/lines"
for pem in "$folder"/keys/*.pem; do
    [ -e "$pem" ] || continue
    if grep -q 'PRIVATE KEY' "$pem"; then
        continue
    fi
    openssl pkey -pubin -in "$pem" -outform DER -out "$work/der" 2> "$work/error" || cannot "$pem is not a public key"
    # These twelve bytes say Ed25519; the 32 that follow are the key.
    [ "$(head -c 12 "$work/der" | base64)" = MCowBQYDK2VwAyEA ] || cannot "$pem is not an Ed25519 key"
    id=$(tail -c 32 "$work/der" | sha256sum | cut -c 1-16)
    cp "$pem" "$work/keys/$id"
done

seq=0
bad() {
    printf 'seq %d (line %d) FAIL: %s\n' "$seq" "$((seq + 1))" "$1" >&2
    exit 1
}

type=application/vnd.in-toto+json
previous=sha256:0000000000000000000000000000000000000000000000000000000000000000
announced=
split -l 1 -d -a 9 "$chain" "$work/lines/"
for line in "$work"/lines/*; do
    [ -e "$line" ] || continue
    # Command substitution drops a newline at the end, so this is empty only where there is one.
    [ -z "$(tail -c 1 "$line")" ] || bad 'the last line is cut off'

    # The envelope, made again from its parts, must be the line byte for byte.
    jq -j '.payload' "$line" 2> "$work/error" | base64 -d > "$work/payload" 2> "$work/error" ||
        bad 'not an envelope with a payload in base64'
    count=$(jq '.signatures | length' "$line" 2> "$work/error") || bad 'not an envelope'
    [[ $count =~ ^[1-9][0-9]*$ ]] || bad 'there is no signature'
    signatures=
    ids=
    for ((at = 0; at < count; at++)); do
        id=$(jq -j ".signatures[$at].keyid" "$line" 2> "$work/error") || bad 'not an envelope'
        [[ $id =~ ^[0-9a-f]{16}$ ]] || bad 'the key id is not 16 hex digits'
        jq -j ".signatures[$at].sig" "$line" 2> "$work/error" | base64 -d > "$work/sig-$at" 2> "$work/error" ||
            bad 'the signature is not base64'
        signatures+="${signatures:+,}{\"keyid\":\"$id\",\"sig\":\"$(base64 < "$work/sig-$at" | tr -d '\n')\"}"
        ids+="$id "
    done
    printf '{"payload":"%s","payloadType":"%s","signatures":[%s]}\n' \
        "$(base64 < "$work/payload" | tr -d '\n')" "$type" "$signatures" > "$work/line"
    cmp -s "$work/line" "$line" || bad 'the envelope is not in its one allowed form'

    # What is signed: type and payload, each with its length before it.
    { printf 'DSSEv1 %d %s %d ' "${#type}" "$type" "$(wc -c < "$work/payload")"; cat "$work/payload"; } > "$work/pae"
    at=0
    for id in $ids; do
        [ -e "$work/keys/$id" ] || bad "signed by key $id, which is not in $folder/keys"
        openssl pkeyutl -verify -pubin -inkey "$work/keys/$id" -rawin -in "$work/pae" \
            -sigfile "$work/sig-$at" > "$work/error" 2>&1 || bad "the signature by $id does not match the payload"
        at=$((at + 1))
    done

    # RFC 8785: one JSON text, members sorted, no spaces.
    jq -cSjs 'if length == 1 then .[0] else error("not one JSON text") end' "$work/payload" \
        > "$work/canonical" 2> "$work/error" || bad 'the payload is not JSON'
    cmp -s "$work/canonical" "$work/payload" || bad 'the payload is not in canonical form'

    said() { jq -r "$1" "$work/payload" 2> "$work/error" || true; }
    [ "$(said '._type')" = https://in-toto.io/Statement/v1 ] || bad 'the statement type is not known'
    [ "$(said '.predicateType')" = https://cryoflux.dev/receipt/v1 ] || bad 'the predicate type is not known'
    [ "$(said '.predicate.format | tojson')" = 1 ] ||
        bad 'it is not in format 1; without a format it was written by a development version'
    jq -e '.predicate as $p | .subject == (
            [["adapter", $p.adapter_hash], ["model", $p.new_model_hash], ["index", $p.index.index_hash]]
            | map(select(.[1]) | {digest: {sha256: (.[1] | ltrimstr("sha256:"))}, name: .[0]}))' \
        "$work/payload" > "$work/error" 2>&1 ||
        bad 'its subject does not name the digests of its predicate'
    [ "$(said '.predicate.seq')" = "$seq" ] || bad "it says seq $(said '.predicate.seq'): a receipt is missing, repeated or moved"
    [ "$(said '.predicate.prev_receipt_hash')" = "$previous" ] ||
        bad "it follows $(said '.predicate.prev_receipt_hash'), but the receipt before it is $previous"
    [[ " $ids" == *" $(said '.predicate.node') "* ]] || bad 'the node it names is not the key that signed it'

    # What was announced is answered before anything else happens.
    kind=$(said '.predicate.kind')
    answers=$(said '.predicate.commit_hash // ""')
    [ "$answers" = "$announced" ] ||
        bad "it answers ${answers:-nothing}, but ${announced:-no commit} is open before it"
    case $announced:$kind in
        '':* | *:decision | *:aborted) ;;
        *) bad "a candidate was announced, and a receipt of kind $kind is no answer" ;;
    esac

    previous=sha256:$(sha256sum < "$work/payload" | cut -c 1-64)
    announced=
    [ "$kind" != commit ] || announced=$previous
    printf '%d %s ok\n' "$seq" "$previous"
    seq=$((seq + 1))
done
printf '%d receipts, every signature good, chain unbroken%s\n' "$seq" "${announced:+, the last one waits for its answer}"
