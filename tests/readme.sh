#!/usr/bin/env bash
# Runs every ```console block of the README, or of a page like it, against a running cluster and compares what comes with
# what it shows. test.sh calls it; the cluster has the shape of sharding.toml, on ports PREFIX0 to PREFIX5 instead of 8080 to 8085.
#
#   tests/readme.sh PAGE PREFIX NODES           NODES: a file with lines "ADDRESS ROLE SHARD"
#
# A line "$ command" is run, the lines below it are what it prints. The whole page is walked once per node:
# localhost:8080 stands for the node asked, or, in a command that writes, for the primary of its shard, since
# replicas refuse writes. Other addresses stand for themselves. A read is asked again for up to 5 s, because a
# replica may lag; a write is sent once. The tool kv, to be found on the PATH, asks the same node for the map.
#
# Prints what differs, then "N passed, N failed"; exit code 1 if anything failed.

set -euo pipefail

readonly PAGE=$1 prefix=$2 nodes=$3
readonly LAG_SECONDS=5
export no_proxy='*'
# shellcheck source=tests/blocks.sh
. "$(dirname "${BASH_SOURCE[0]}")/blocks.sh"

passed=0
failed=0
asked=
primary=

main() {
    local address role of_shard
    while read -r address role _; do
        if [ "$role" = primary ]; then
            of_shard=$address
        fi
        walk "$address" "$of_shard"
    done <"$nodes"
    [ $((passed + failed)) -gt 0 ] || failed=1
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

# Reads the page once.
walk() {
    asked=$1 primary=$2
    each_command "$PAGE"
}

command_at() {
    check "$asked" "$primary" "$2" "$3"
}

check() {
    local asked=$1 primary=$2 command=$3 expected=$4 target=$1 deadline=$SECONDS output
    if writes "$command"; then
        target=$primary
    else
        deadline=$((SECONDS + LAG_SECONDS))
    fi
    local real=${command//localhost:8080/@asked@}
    real=${real//localhost:808/localhost:$prefix}
    real=${real//@asked@/$target}
    while true; do
        output=$(KV_NODE=$target bash -c "$real" 2>/dev/null </dev/null | tr -d '\r') || true
        output=${output//localhost:$prefix/localhost:808}
        if [ "$output" = "$expected" ]; then
            passed=$((passed + 1))
            return
        fi
        [ $SECONDS -lt "$deadline" ] || break
        sleep 0.1
    done
    failed=$((failed + 1))
    printf 'FAILED at %s: $ %s\n--- the page shows\n%s\n--- it prints\n%s\n---\n' \
        "$asked" "$real" "$expected" "$output"
}

writes() {
    case $1 in
    *' -X'* | *' --data'* | *'/set?'* | *'/delete?'*) return 0 ;;
    *'kv put '* | *'kv incr '* | *'kv delete '*) return 0 ;;
    *) return 1 ;;
    esac
}

main
