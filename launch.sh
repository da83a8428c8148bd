#!/usr/bin/env bash
# Starts every node of a shard map on this machine, waits until all are ready, and stops them on Ctrl-C.
#
#   ./launch.sh [MAP] [DATA]        defaults: sharding.toml and data/, next to this script
#
# Builds kvnode first, unless KVNODE_BIN names a ready binary. Needs bash and curl; for the build, cargo and a C
# compiler. The node at HOST:PORT keeps its data in DATA/PORT and its log in DATA/PORT.log (DATA/HOST-PORT where
# the map uses a port twice). Started again on the same DATA, it goes on with what is there.
#
# With KVNODE_TLS_CERT and its companions in the environment (kv cert dev makes certificates) the nodes speak TLS; curl
# then trusts KVNODE_TLS_CA or KVNODE_TLS_CLIENT_CA, and shows the certificate of KV_CERT and KV_KEY, if they are set.
#
# Ctrl-C, SIGTERM and SIGHUP stop the processes started here, by process id, and nothing else: SIGTERM, then
# SIGKILL for what still runs after 15 s. A node that dies meanwhile is reported; the others go on.
#
# Exit code: 0 stopped by a signal, all nodes ended cleanly; 1 a node could not start or end cleanly, a port is
# in use, or something is missing; 2 wrong arguments or a mistake in the map; 128 + signal if stopped before all
# nodes were ready.

set -euo pipefail

readonly READY_SECONDS=60
readonly STOP_SECONDS=15
readonly LOG_LINES=15

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# One entry per node of the map, in its order.
addresses=()
roles=()
shards=()
dirs=()
# How nodes are spoken to, and what curl needs for it.
scheme=http
tls=()
# One entry per node started: its process id, or 0 once it has ended.
pids=()
all_ready=no
unclean_end=no

main() {
    case "${1-}" in
    -h | --help)
        usage
        exit 0
        ;;
    -*) die 2 "unknown option $1; see ./launch.sh --help" ;;
    esac
    [ $# -le 2 ] || die 2 "too many arguments; see ./launch.sh --help"
    local map=${1:-$root/sharding.toml} data=${2:-$root/data}

    trap 'on_signal 2' INT
    trap 'on_signal 15' TERM
    trap 'on_signal 1' HUP
    trap stop_nodes EXIT

    command -v curl >/dev/null || die 1 "curl is missing; install it to see whether nodes are ready"
    local kvnode=${KVNODE_BIN:-}
    if [ -z "$kvnode" ]; then
        build
        kvnode=$built
    fi
    [ -x "$kvnode" ] || die 1 "$kvnode cannot be run"

    choose_tls
    read_map "$kvnode" "$map"
    choose_dirs "$data"
    check_ports
    mkdir -p "$data"
    start_nodes "$kvnode" "$map"
    wait_until_ready
    all_ready=yes
    print_table
    watch_nodes
}

# Prints the comment at the top of this file.
usage() {
    local line
    while IFS= read -r line; do
        case $line in
        '#!'*) ;;
        '#'*) line=${line#'#'} && printf '%s\n' "${line# }" ;;
        *) return 0 ;;
        esac
    done <"${BASH_SOURCE[0]}"
}

die() {
    local code=$1
    shift
    printf 'launch.sh: %s\n' "$*" >&2
    exit "$code"
}

# Sets `built` to the path of the new binary, as cargo reports it.
build() {
    command -v cargo >/dev/null ||
        die 1 "cargo is missing; install Rust, or set KVNODE_BIN to a ready kvnode"
    command -v "${CC:-cc}" >/dev/null ||
        die 1 "no C compiler (${CC:-cc}), which LMDB needs; install gcc or clang, or set KVNODE_BIN to a ready kvnode"
    echo "Building kvnode (the first time takes some minutes) ..."
    local messages line
    messages=$(cd "$root" && cargo build --release -p kvnode --message-format=json-render-diagnostics) ||
        die 1 "kvnode does not build; cargo's messages are above"
    built=
    while IFS= read -r line; do
        if [[ $line =~ \"executable\":\"([^\"]*/kvnode)\" ]]; then
            built=${BASH_REMATCH[1]}
        fi
    done <<<"$messages"
    [ -n "$built" ] || die 1 "cargo built no kvnode"
}

# kvnode reads the map, so that there is one reader of it; a mistake is on stderr with file, line and column.
read_map() {
    local kvnode=$1 map=$2 nodes address role shard
    nodes=$("$kvnode" --config "$map" --check-config) || exit 2
    while read -r address role shard; do
        addresses+=("$address")
        roles+=("$role")
        shards+=("$shard")
    done <<<"$nodes"
    [ -n "${addresses[0]-}" ] || die 1 "$kvnode --check-config names no node"
}

choose_dirs() {
    local data=$1 address seen=' ' repeated=no
    for address in "${addresses[@]}"; do
        case $seen in *" ${address##*:} "*) repeated=yes ;; esac
        seen+="${address##*:} "
    done
    for address in "${addresses[@]}"; do
        case $repeated in
        no) dirs+=("$data/${address##*:}") ;;
        yes) dirs+=("$data/${address%:*}-${address##*:}") ;;
        esac
    done
}

choose_tls() {
    [ -n "${KVNODE_TLS_CERT-}" ] || return 0
    scheme=https
    local trusted=${KVNODE_TLS_CA:-${KVNODE_TLS_CLIENT_CA-}}
    [ -z "$trusted" ] || tls+=(--cacert "$trusted")
    [ -z "${KV_CERT-}" ] || tls+=(--cert "$KV_CERT" --key "${KV_KEY-}")
}

# Free is a port where nobody takes a connection: curl's code 7.
check_ports() {
    local address code
    for address in "${addresses[@]}"; do
        code=0
        curl --silent --noproxy '*' --connect-timeout 1 --max-time 2 --output /dev/null "http://$address/" || code=$?
        case $code in
        7) ;;
        6) die 1 "the host of $address is not known here" ;;
        *) die 1 "port ${address##*:} is in use: something answers at $address; stop it, or change the map" ;;
        esac
    done
}

start_nodes() {
    local kvnode=$1 map=$2 i
    # With job control each node has its own process group: the terminal's Ctrl-C reaches only this script,
    # which then stops them in order.
    set -m
    for i in "${!addresses[@]}"; do
        mkdir -p "${dirs[i]}"
        "$kvnode" --config "$map" --address "${addresses[i]}" --data "${dirs[i]}" \
            </dev/null >>"${dirs[i]}.log" 2>&1 &
        pids+=($!)
    done
    set +m
}

wait_until_ready() {
    local i code deadline=$((SECONDS + READY_SECONDS))
    for i in "${!addresses[@]}"; do
        while true; do
            has_ended "$i" && report_end "$i" && die 1 "not all nodes start; stopping the others"
            code=$(curl --silent --noproxy '*' --max-time 2 --output /dev/null --write-out '%{http_code}' \
                ${tls[@]+"${tls[@]}"} "$scheme://${addresses[i]}/readyz") || true
            [ "$code" = 200 ] && break
            if [ $SECONDS -ge $deadline ]; then
                show_log "$i"
                die 1 "${addresses[i]} is not ready after $READY_SECONDS s (/readyz answers $code); stopping all"
            fi
            sleep 0.1
        done
    done
    # A node that came up early may have died since.
    for i in "${!addresses[@]}"; do
        if has_ended "$i"; then
            report_end "$i"
            die 1 "not all nodes start; stopping the others"
        fi
    done
}

print_table() {
    local i node=$scheme://${addresses[0]} curl=curl
    [ ${#tls[@]} = 0 ] || curl="curl ${tls[*]}"
    printf '\n%-24s %-8s %-12s %-8s %s\n' ADDRESS ROLE SHARD PID DATA
    for i in "${!addresses[@]}"; do
        printf '%-24s %-8s %-12s %-8s %s\n' "${addresses[i]}" "${roles[i]}" "${shards[i]}" "${pids[i]}" "${dirs[i]}"
    done
    cat <<TRY

All ${#addresses[@]} nodes are ready. Any of them answers; -L follows to the shard that has the key:

  $curl -L '$node/set?key=greeting&value=hello'
  $curl -L '$node/get?key=greeting'
  $curl -L -X PUT --data-binary 'Ada' '$node/kv/user:1'
  $curl -L '$node/kv/user:1'
  $curl '$node/route?key=user:1'

Ctrl-C stops the nodes; their data stays.
TRY
}

# Runs until a signal comes or no node is left.
watch_nodes() {
    local i running
    while true; do
        running=0
        for i in "${!pids[@]}"; do
            if has_ended "$i"; then
                unclean_end=yes
                report_end "$i"
            fi
            [ "${pids[i]}" = 0 ] || running=$((running + 1))
        done
        [ $running -gt 0 ] || die 1 "no node is left"
        sleep 0.5
    done
}

# Whether a node that was running is so no longer. bash collects ended children by itself and keeps their code.
has_ended() {
    [ "${pids[$1]}" != 0 ] && ! kill -0 "${pids[$1]}" 2>/dev/null
}

report_end() {
    local i=$1 code=0
    wait "${pids[i]}" || code=$?
    pids[i]=0
    printf 'launch.sh: the node at %s ended: %s\n' "${addresses[i]}" "$(explain_code "$code")" >&2
    show_log "$i"
}

explain_code() {
    case $1 in
    0) echo "exit code 0, a clean stop" ;;
    2) echo "exit code 2, bad configuration" ;;
    3) echo "exit code 3, its data is refused" ;;
    4) echo "exit code 4, its data directory is in use" ;;
    5) echo "exit code 5, a storage failure" ;;
    1[3-9][0-9]) echo "exit code $1, signal $(($1 - 128))" ;;
    *) echo "exit code $1" ;;
    esac
}

show_log() {
    printf -- '--- last lines of %s\n' "${dirs[$1]}.log" >&2
    tail -n "$LOG_LINES" "${dirs[$1]}.log" >&2
    printf -- '---\n' >&2
}

on_signal() {
    if [ $all_ready = yes ]; then
        exit 0
    fi
    exit $((128 + $1))
}

# Runs at every exit. Later signals change nothing any more: the nodes are given their time.
stop_nodes() {
    local exit_code=$? i code deadline=$((SECONDS + STOP_SECONDS))
    trap '' INT TERM HUP
    trap - EXIT
    for i in "${!pids[@]}"; do
        has_ended "$i" && unclean_end=yes && report_end "$i"
        [ "${pids[i]}" = 0 ] || kill -TERM "${pids[i]}" 2>/dev/null || true
    done
    for i in "${!pids[@]}"; do
        [ "${pids[i]}" != 0 ] || continue
        while kill -0 "${pids[i]}" 2>/dev/null && [ $SECONDS -lt $deadline ]; do
            sleep 0.1
        done
        if kill -KILL "${pids[i]}" 2>/dev/null; then
            printf 'launch.sh: the node at %s did not stop in %s s and was killed\n' \
                "${addresses[i]}" "$STOP_SECONDS" >&2
        fi
        code=0
        wait "${pids[i]}" || code=$?
        if [ $code != 0 ]; then
            unclean_end=yes
            printf 'launch.sh: the node at %s stopped with %s\n' "${addresses[i]}" "$(explain_code "$code")" >&2
        fi
    done
    [ ${#pids[@]} = 0 ] || echo "Stopped."
    if [ $exit_code = 0 ] && [ $unclean_end = yes ]; then
        exit_code=1
    fi
    exit $exit_code
}

main "$@"
