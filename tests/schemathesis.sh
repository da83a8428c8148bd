#!/usr/bin/env bash
# Tries out /openapi.json against a running cluster: schemathesis makes requests from it, right ones and wrong ones,
# and every answer has to be one that it describes. test.sh calls this, if schemathesis is installed.
#
#   tests/schemathesis.sh NODES DATA      NODES: a file with lines "ADDRESS ROLE SHARD"; DATA: the nodes' directory,
#                                         with a log PORT.log of each
#
# One primary and one replica are asked. KV_SEED repeats another run's choices; with KV_BAR=1 it takes 10 minutes
# instead of one. A description that lacks a status has to be found out, or none of this says anything.
#
# Prints what fails, a line "bar E1", then "N passed, N failed"; exit code 1 if anything failed.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root nodes=$1 data=$2
readonly CHECKS=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
readonly CONTROL_OPERATION=getEntry
export no_proxy='*' PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=$root/tests/schemathesis/hooks.py KV_SEED=${KV_SEED:-1}

passed=0
failed=0
cases=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    local length=(--max-examples 60)
    [ -z "${KV_BAR-}" ] || length=(--max-time 300)
    check described primary "${length[@]}"
    check described replica "${length[@]}"
    check a_wrong_description_is_found_out
    check every_node_is_well
    echo "bar E1: $cases cases, $failed failed, seed $KV_SEED"
    save_row
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

check() {
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$*"
    fi
}

# described ROLE ARGUMENT...: a node of that role answers as it says itself.
described() {
    local role=$1 log=$scratch/$1.log base count
    shift
    base=$(node "$role")
    if ! try "$base/openapi.json" "$@" >"$log" 2>&1; then
        cat "$log"
        return 1
    fi
    count=$(grep -oE '[0-9]+ generated' "$log" | grep -oE '[0-9]+')
    cases=$((cases + count))
    echo "$role: $count cases"
}

# Some key is always absent, and the description says nothing of 404.
a_wrong_description_is_found_out() {
    local wrong=$scratch/wrong.json log=$scratch/wrong.log
    sed '0,/"404": /{/"404": /d}' "$root/kvnode/src/http/openapi.json" >"$wrong"
    if try "$wrong" --url "$(node primary)" --include-operation-id $CONTROL_OPERATION --max-examples 20 >"$log" 2>&1; then
        echo "a description of $CONTROL_OPERATION without 404 was taken for right"
        return 1
    fi
    grep -q 'Undocumented status code' "$log" || { cat "$log" && return 1; }
}

every_node_is_well() {
    local address result=0
    while read -r address _; do
        curl --fail --silent --show-error --max-time 10 --output /dev/null "http://$address/readyz" || result=1
        if grep -H 'panicked' "$data/${address##*:}.log"; then result=1; fi
    done <"$nodes"
    return $result
}

# The row E1 of the table in RELIABILITY.md, see kvnode/tests/cluster/support/report.rs.
save_row() {
    [ -n "${KV_REPORT_DIR-}" ] && [ $failed = 0 ] || return 0
    mkdir -p "$KV_REPORT_DIR"
    printf '{"rounds":%s,"figures":"%s requests to a primary and a replica: every answer one that the description has, no panic","seed":"%s","full":%s}\n' \
        "$cases" "$cases" "$KV_SEED" "$([ -n "${KV_BAR-}" ] && echo true || echo false)" >"$KV_REPORT_DIR/E1.row.json"
    printf '{"off":"the description of 404","found":"an undocumented status code"}\n' >"$KV_REPORT_DIR/E1.control.json"
}

# One thread and no memory of other runs, so that the seed decides. It keeps files where it is started.
try() (
    cd "$scratch"
    schemathesis --config-file "$root/tests/schemathesis/settings.toml" run "$@" --checks $CHECKS --seed "$KV_SEED" \
        --workers 1 --max-redirects 0 --request-timeout 20 --continue-on-failure --generation-database none \
        --warnings off --no-color
)

# node ROLE: where the first node of that role answers.
node() {
    awk -v role="$1" '$2 == role { print "http://" $1; exit }' "$nodes"
}

main
