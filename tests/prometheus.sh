#!/usr/bin/env bash
# Holds deploy/alerts.yml and deploy/grafana.json against a running cluster: every metric that they ask for is one
# that its nodes have. With promtool (Debian: prometheus) also: /metrics is sound, and the alerts say of made-up
# histories what they should. test.sh calls this.
#
#   tests/prometheus.sh NODES      NODES: a file with lines "ADDRESS ROLE SHARD"
#
# Prints what fails, then "N passed, N failed"; exit code 1 if anything failed. What promtool would have checked is
# named as skipped where it is missing.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root nodes=$1
export no_proxy='*'

passed=0
failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    provoke
    scrape
    check every_metric_is_there
    check control_a_metric_that_is_not_there
    if command -v promtool >/dev/null; then
        check promtool check rules "$root/deploy/alerts.yml"
        check promtool test rules "$root/deploy/alerts.test.yml"
        check sound_metrics
    else
        echo "skipped: promtool is not installed"
    fi
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

check() {
    if "$@" >"$scratch/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $*"
        cat "$scratch/said"
    fi
}

# Something of everything that is counted by what came of it: a write, a read, and a refusal on every node.
provoke() {
    local address
    while read -r address _; do
        curl -sL -o /dev/null -X PUT --data-binary v "http://$address/kv/prometheus"
        curl -sL -o /dev/null "http://$address/kv/prometheus"
        curl -s -o /dev/null -H 'Content-Type: application/x-ndjson' --data-binary '{"op":"get","key":"prometheus"}' \
            "http://$address/batch"
        curl -s -o /dev/null -X PUT --data-binary v "http://$address/kv/prometheus?ttl=soon"
    done <"$nodes"
}

# A file for each node, in both formats.
scrape() {
    local address
    while read -r address _; do
        curl -sf "http://$address/metrics" >"$scratch/${address//[^0-9a-zA-Z]/-}.classic"
        curl -sf -H 'Accept: application/openmetrics-text' "http://$address/metrics" \
            >"$scratch/${address//[^0-9a-zA-Z]/-}.open"
    done <"$nodes"
}

# Names that rules and dashboard ask for.
asked() {
    grep -ohE '\b(kv|process)_[a-z_]+' "$root/deploy/alerts.yml" "$root/deploy/grafana.json" | sort -u
}

# Names that any node has.
there() {
    grep -hoE '^[a-z_]+' "$scratch"/*.classic | sort -u
}

every_metric_is_there() {
    [ "$(asked | wc -l)" -ge 30 ] && missing <(asked)
}

# Fails with the names that no node has. Those of TLS are there with TLS alone: tests/tls.sh looks for them.
missing() {
    local names
    names=$(comm -23 "$1" <(there) | grep -v '^kv_tls_') || true
    [ -z "$names" ] || { echo "no node has:" && echo "$names" && return 1; }
}

control_a_metric_that_is_not_there() {
    ! missing <(echo kv_no_such_metric_total)
}

sound_metrics() {
    local file
    for file in "$scratch"/*.classic; do
        promtool check metrics <"$file" || { echo "of $file" && return 1; }
    done
    # What OpenMetrics has at its end, and the older format must not have.
    for file in "$scratch"/*.open; do
        [ "$(tail -n 1 "$file")" = '# EOF' ] || return 1
    done
    ! grep -q '# EOF' "$scratch"/*.classic
}

main
