#!/usr/bin/env bash
# Walks docs/first-hour.md as a new user does: runs its ```console blocks one after the other, in one shell and in a copy
# of the sources, and compares what comes with what the page shows. A headless Chromium looks at the nodes' page meanwhile.
# test.sh calls it.
#
#   KVNODE_BIN=FILE tests/walk.sh KV PREFIX DIR     KV: the tool; DIR: to work in, does not exist yet
#
# Nodes have the ports PREFIX0 to PREFIX5 instead of 8080 to 8085. ./launch.sh is started in the background, as if in
# another terminal, and <!-- walk: ctrl-c --> ends it; <!-- walk: page ... --> is an order for tests/browser.py. What differs
# from run to run (times, positions, sizes, process ids, paths) is compared as a word that says what it is, and the
# order of lines is not compared. The process ids of a table on the page stand for those of the real one.
#
# Prints what differs, "skipped: " and why where a browser is missing, and "N passed, N failed, N skipped"; exit code 1 if
# anything failed.

set -euo pipefail

readonly PREFIX=$2 READY_SECONDS=90
KV=$(realpath "$1") DIR=$(realpath -m "$3") KVNODE_BIN=$(realpath "$KVNODE_BIN")
readonly KV DIR
export KVNODE_BIN
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT PAGE=$ROOT/docs/first-hour.md
# shellcheck source=tests/blocks.sh
. "$ROOT/tests/blocks.sh"

passed=0
failed=0
skipped=0
cluster=
# The browser's process, where it reads and where it writes; or why there is none.
browser=
orders=
answers=
no_browser=
# From process ids of the page's table to real ones.
declare -A pids=()

main() {
    trap clean_up EXIT
    mkdir -p "$DIR"
    copy_sources "$DIR/kv"
    PATH=$(dirname "$KV"):$(dirname "$KVNODE_BIN"):$PATH
    CARGO_TARGET_DIR=$(cd "$ROOT" && realpath -m "${CARGO_TARGET_DIR:-target}")
    export PATH CARGO_TARGET_DIR CARGO_NET_OFFLINE=true no_proxy='*'
    start_browser
    cd "$DIR/kv"
    each_command "$PAGE"
    [ -z "$no_browser" ] || echo "skipped: $no_browser"
    [ $passed -gt 0 ] || failed=1
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}

# What a clone has and the page needs, with other ports.
copy_sources() {
    mkdir "$1"
    tar -C "$ROOT" --exclude=target -cf - Cargo.toml Cargo.lock launch.sh sharding.toml kvclient kvnode examples | tar -C "$1" -xf -
    sed -i "s/localhost:808/localhost:$PREFIX/" "$1/sharding.toml"
}

command_at() {
    local line=$1 command=$2 expected=$3 said=$DIR/said code=0 id
    command=${command//808/$PREFIX}
    for id in "${!pids[@]}"; do command=${command//$id/${pids[$id]}}; done
    case $command in
    ./launch.sh*)
        said=$DIR/launch.log
        launch "$command" || code=$?
        ;;
    # What is built is of the versions that the rest is of, and downloaded already.
    *cargo\ run*) cp "$ROOT/Cargo.lock" . ;&
    *)
        set +eu
        eval "$command" >"$said" 2>&1 </dev/null 3<&- || code=$?
        set -eu
        ;;
    esac
    compare "$line" "$command" "$expected" "$said"
    [[ $command != ./launch.sh* ]] || learn_pids "$expected" "$said"
}

compare() {
    local line=$1 command=$2 expected=$3 said=$4
    if is_as_shown "$expected" "$said"; then
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    printf 'FAILED: line %s of %s: $ %s\n--- it shows\n%s\n--- what comes\n%s\n---\n' \
        "$line" "$PAGE" "$command" "$expected" "$(cat "$said")"
}

# Where the page leaves out lines with "...", those that it has are looked for.
is_as_shown() {
    if grep -qx '\.\.\.' <<<"$1"; then
        [ -z "$(comm -23 <(grep -vx '\.\.\.' <<<"$1" | masked) <(masked <"$2"))" ]
    else
        [ "$(masked <<<"$1")" = "$(masked <"$2")" ]
    fi
}

# The lines of a text, sorted, with a word for whatever differs from run to run.
masked() {
    sed -E -e "s/$PREFIX([0-5])/808\1/g" -e '/^Building kvnode /d' -e '/^$/d' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+Z)?/DATE/g' \
        -e 's/\b[0-9.]+ (ms|s)\b/TIME/g' -e 's/\b[0-9.]+ (bytes|[kMG]i?B)\b/SIZE/g' \
        -e 's/\b1-[0-9a-f]{16}\b/MAP/g' -e 's/\b[0-9]+\.[0-9]+\b/POSITION/g' \
        -e 's/(shard[0-9]) +[0-9]+ +[^ ]*\/data\//\1 PID data\//' -e 's/\b[0-9]+ attempts/N attempts/' \
        -e 's/(POSITION\tPOSITION\tDATE\t)[0-9]+/\1SIZE/' -e 's/[[:space:]]+/ /g' -e 's/ $//' | sort
}

# The cluster in its own terminal; what it prints is in launch.log.
launch() {
    local deadline=$((SECONDS + READY_SECONDS))
    # Emptied here: what ran before must not be taken for this one.
    : >"$DIR/launch.log"
    $1 >"$DIR/launch.log" 2>&1 3<&- &
    cluster=$!
    until grep -q '^Ctrl-C stops' "$DIR/launch.log"; do
        kill -0 "$cluster" 2>/dev/null && [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

learn_pids() {
    local shown address real
    while read -r address _ _ shown _; do
        real=$(awk -v address="${address/808/$PREFIX}" '$1 == address { print $4 }' "$2")
        [ -z "$real" ] || pids[$shown]=$real
    done < <(grep '^localhost:' <<<"$1")
}

direction_at() {
    local what=${2//808/$PREFIX}
    case $what in
    ctrl-c) ctrl_c ;;
    'page '*) page "$1" "${what#page }" ;;
    'trust '*) trust "${what#trust }" ;;
    *) echo "line $1: nobody knows how to $2" && failed=$((failed + 1)) ;;
    esac
}

# launch.sh takes SIGTERM for Ctrl-C, which bash keeps from what runs in the background.
ctrl_c() {
    kill -TERM "$cluster" 2>/dev/null || true
    wait "$cluster" || true
    cluster=
}

page() {
    local answer
    [ -z "$no_browser" ] || { skipped=$((skipped + 1)) && return; }
    echo "$2" >&"$orders"
    read -r answer <&"$answers" || answer="the browser has ended: $(tail -n 3 "$DIR/browser.log")"
    if [ "$answer" = seen ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: line %s of %s: the page, %s: %s\n' "$1" "$PAGE" "$2" "$answer"
    fi
}

start_browser() {
    command -v python3 >/dev/null || { no_browser="python3 is not installed" && return; }
    chromium --version >/dev/null 2>&1 || { no_browser="chromium is not installed" && return; }
    mkdir -p "$DIR/home"
    coproc BROWSER { HOME=$DIR/home exec python3 "$ROOT/tests/browser.py" "$DIR/profile" 2>"$DIR/browser.log"; }
    browser=$BROWSER_PID answers=${BROWSER[0]} orders=${BROWSER[1]}
}

# A person imports the authority into the browser's settings; this does the same to its store, and starts it anew.
trust() {
    local store=$DIR/home/.pki/nssdb
    [ -z "$no_browser" ] || return 0
    stop_browser
    command -v certutil >/dev/null || { no_browser="certutil (libnss3-tools) is not installed" && return; }
    mkdir -p "$store"
    certutil -d "sql:$store" -N --empty-password
    certutil -d "sql:$store" -A -n kv -t C,, -i "$1"
    start_browser
}

stop_browser() {
    [ -n "$browser" ] || return 0
    exec {orders}>&-
    wait "$browser" || true
    browser=
}

clean_up() {
    local code=$? pid
    [ -z "$cluster" ] || ctrl_c
    stop_browser || true
    # A node that the page has started by hand, if it did not come to end it.
    for pid in $(jobs -p); do kill -KILL "$pid" 2>/dev/null || true; done
    exit $code
}

main
