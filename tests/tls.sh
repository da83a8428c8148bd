#!/usr/bin/env bash
# A cluster by launch.sh with TLS, under certificates by `kv cert dev`: curl, kv and the Python client find what was
# stored, and whoever shows no certificate or speaks in clear is turned away. test.sh calls it.
#
#   KVNODE_BIN=FILE tests/tls.sh KV MAP DIR     KV: the tool; MAP: of a cluster that does not run; DIR: to work in
#
# Prints what went wrong; exit code 1 if anything did.

set -euo pipefail

readonly kv=$1 map=$2 dir=$3
readonly READY_SECONDS=90
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cluster=

main() {
    local node
    mkdir -p "$dir"
    "$kv" cert dev "$dir/certs" >/dev/null
    export KVNODE_TLS_CERT=$dir/certs/node.pem KVNODE_TLS_KEY=$dir/certs/node-key.pem KVNODE_TLS_CLIENT_CA=$dir/certs/ca.pem
    export KV_CA=$dir/certs/ca.pem KV_CERT=$dir/certs/client.pem KV_KEY=$dir/certs/client-key.pem
    start
    node=$(sed -n "s|.* '\(https://[^/]*\)/route.*|\1|p" "$dir/launch.log")
    [ -n "$node" ] || fail "launch.sh names no node with https"
    asks "$node"
    turns_away "$node"
    stop
}

asks() {
    local node=$1 shown=(--cacert "$KV_CA" --cert "$KV_CERT" --key "$KV_KEY")
    # The key's shard may be another: curl follows from https to https.
    ask "${shown[@]}" -L -X PUT --data-binary Ada "$node/kv/user:1" >/dev/null
    same Ada "$(ask "${shown[@]}" -L "$node/kv/user:1")"
    same Ada "$("$kv" --map "$map" get user:1)"
    same Ada "$("$kv" --node "$node" get user:1)"
    [[ $(ask "${shown[@]}" "$node/metrics") == *kv_tls_certificate_expiry_timestamp_seconds\ [0-9]* ]] ||
        fail "/metrics does not say when the certificate ends"
    "$kv" --node "$node" status >/dev/null || fail "kv status: not all nodes are well"
    if command -v python3 >/dev/null; then
        same Ada "$(python3 "$root/examples/python/kv.py" --node "$node" get user:1)"
    fi
}

turns_away() {
    local node=$1 code=0
    same 401 "$(ask --cacert "$KV_CA" --output /dev/null --write-out '%{http_code}' "$node/status")"
    same ready "$(ask --cacert "$KV_CA" "$node/readyz")"
    ask --output /dev/null "http://${node#https://}/readyz" 2>/dev/null && fail "a node with TLS answers in clear"
    ask --output /dev/null "$node/readyz" 2>/dev/null || code=$?
    same 60 "$code"
}

ask() {
    curl -q --silent --show-error --fail-early --noproxy '*' --max-time 20 "$@"
}

start() {
    local deadline=$((SECONDS + READY_SECONDS))
    trap stop EXIT
    "$root/launch.sh" "$map" "$dir/data" >"$dir/launch.log" 2>&1 &
    cluster=$!
    until grep -q 'nodes are ready' "$dir/launch.log"; do
        if ! kill -0 "$cluster" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            cat "$dir/launch.log"
            fail "the cluster does not start"
        fi
        sleep 0.1
    done
}

stop() {
    local code=0 ended=$cluster
    trap - EXIT
    [ -n "$ended" ] || return 0
    cluster=
    kill -TERM "$ended" 2>/dev/null || true
    wait "$ended" || code=$?
    [ $code = 0 ] || fail "launch.sh ended with exit code $code"
}

same() {
    [ "$1" = "$2" ] || fail "expected $1, got $2"
}

fail() {
    printf 'tests/tls.sh: %s\n' "$1" >&2
    exit 1
}

main
