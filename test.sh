#!/usr/bin/env bash
# Proves everything that can be proved on this machine. Changes nothing in the tree but target/.
#
#   ./test.sh [--slow] [--bar [ROW...]]
#
#   --slow     also the long crash rounds (KV_SLOW=1)
#   --bar      also the full forms of the fault and speed bars (KV_BAR=1), which want the machine for themselves for
#              an hour and a half, and write reliability.json and the table in RELIABILITY.md
#   --bar ROW  only the full forms of these rows of the table (A1 B6 ...), which replace what it said of them
#
# Needs bash, curl, coreutils, grep, sed, awk, cargo and a C compiler. What needs more runs where it is installed and is reported
# as skipped, with the reason, where not. Tests and checks use cargo's dev profile; the node and the example
# programs, started as a user starts them, the release profile.
#
# Ends with what ran, what was skipped and why, and a line "N passed, N failed, N skipped".
# Exit code: 0 if nothing failed, 1 otherwise, 2 for wrong arguments.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"

# What must stay out of the dependency tree: HTTP/2, C libraries for TLS and compression, unmaintained crates.
readonly BANNED="h2 aws-lc-rs aws-lc-sys openssl-sys bincode brotli zstd-sys"
readonly UNICODE_DATA=/usr/share/unicode/UnicodeData.txt
readonly CLUSTER_SECONDS=90

passed=0
failed=0
skipped=0
# Lines of the summary.
report=()
skips=()
cluster_pid=
# Nodes started again by hand, next to launch.sh.
restarted=()
scratch=$(mktemp -d)

main() {
    local argument bar=no rows=()
    for argument in "$@"; do
        case $bar,$argument in
        *,--slow) export KV_SLOW=1 ;;
        *,--bar) bar=yes ;;
        yes,[A-Z]*[0-9]) rows+=("$argument") ;;
        *) echo "test.sh: unknown argument $argument; known are --slow and --bar with names of rows" >&2 && exit 2 ;;
        esac
    done
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # A proxy must not see what goes to this machine; a setting of the caller must not reach the nodes started here.
    export no_proxy='*'
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
    local variable
    for variable in ${!KVNODE_*} KV_MAP KV_NODE KV_BAR KV_FAULTS KV_NODE_BINARY; do unset "$variable"; done
    # Where rows of the fault bar say what came of them.
    export KV_REPORT_DIR=$scratch/rows
    if [ ${#rows[@]} != 0 ]; then
        section "Build as users run it" check cargo build --locked --release -p kvnode
        # The row of requests made from the API's description belongs to the cluster by launch.sh.
        if [[ " ${rows[*]} " == *" E1 "* ]]; then
            check release_build
            section "A cluster by launch.sh" cluster
        fi
        section "Fault and speed bars" bars "${rows[@]}"
        summary
        return
    fi

    section "Format" check cargo fmt --all --check
    section "Lints" check cargo clippy --locked --workspace --all-targets --all-features --quiet -- -D warnings
    section "Dependencies that stay out" check banned_crates
    section "Licences of dependencies" check tests/licences.sh
    section "Oldest Rust" oldest_rust
    section "Packages" packages
    section "Tests" tests
    section "Micro-benchmarks" check micro_benchmarks
    section "Examples in documentation" doctests
    section "Documentation" check documentation
    section "Scripts" scripts
    section "Build as users run it" check release_build
    section "A cluster by launch.sh" cluster
    section "Python client" python_client
    section "Performance, in short" performance
    [ -n "${KV_SLOW-}" ] || skip "long crash rounds" "run ./test.sh --slow"
    if [ $bar = yes ]; then
        section "Fault and speed bars" bars
    else
        skip "full forms of the fault and speed bars" "run ./test.sh --bar"
    fi
    summary
}

# section TITLE COMMAND...: runs a command that counts by itself; its failure does not stop the others.
section() {
    local title=$1 began=$SECONDS failed_before=$failed passed_before=$passed
    shift
    printf '\n=== %s\n' "$title"
    "$@"
    local line
    line=$(printf '%-28s %5s passed %3s failed %5s s' "$title" $((passed - passed_before)) \
        $((failed - failed_before)) $((SECONDS - began)))
    report+=("$line")
    printf '%s\n' "--- $line"
}

# check COMMAND...: counts as one test.
check() {
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$*"
    fi
}

skip() {
    skipped=$((skipped + ${3:-1}))
    skips+=("$1: $2")
    printf 'skipped: %s: %s\n' "$1" "$2"
}

banned_crates() {
    # Cargo.lock holds what any target or feature of ours may pull in, so absence there is absence everywhere.
    local crate result=0
    for crate in $BANNED; do
        if grep -q "^name = \"$crate\"\$" Cargo.lock; then
            result=1
            echo "$crate is in the dependency tree:"
            cargo tree --locked --workspace --target all --edges all --invert "$crate" || true
        fi
    done
    if cargo tree --locked -p kvclient --edges normal --prefix none | grep -E '^(clap|tracing-subscriber) '; then
        result=1
        echo "is what the tool kv needs, and kvclient shall have it only with the feature cli"
    fi
    return $result
}

# What Cargo.toml promises of older compilers. Clippy looks for what they do not have, among the lints above.
oldest_rust() {
    local oldest toolchain
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if [[ $(rustc --version) == "rustc $oldest."* ]]; then
        echo "Rust $oldest is what everything here is built with"
        return
    fi
    toolchain=$(rustup toolchain list 2>/dev/null | grep -o "^${oldest}[.-][^ ]*" | head -n 1) || true
    if [ -n "$toolchain" ]; then
        check cargo "+$toolchain" check --locked --workspace --all-features --target-dir "$scratch/oldest"
    else
        skip "Rust $oldest, the oldest that Cargo.toml names" "it is not installed"
    fi
}

# As a registry would get them, and a program outside of this workspace that uses them.
packages() {
    local log=$scratch/package.log last
    tests/package.sh | tee "$log" || true
    last=$(tail -n 1 "$log")
    [[ $last == *" passed, "*" failed" ]] || last="0 passed, 1 failed"
    count_tests "$(sum_before passed "$last")" "$(sum_before failed "$last")" 0
}

tests() {
    local log=$scratch/tests.log counts
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace --all-features --no-fail-fast 2>&1 | tee "$log" || true
        # Summary [ 0.354s] 42 tests run: 41 passed (1 slow), 1 failed, 2 skipped
        counts=$(grep -E 'Summary \[.*tests? run:' "$log" | tail -n 1) || true
        count_tests "$(sum_before "passed" "$counts")" "$(sum_before 'failed|timed out|exec failed' "$counts")" \
            "$(sum_before "skipped" "$counts")"
    else
        skip "cargo nextest" "not installed; cargo test ran the tests instead" 0
        cargo test --locked --workspace --all-features --lib --bins --tests --examples --no-fail-fast 2>&1 | tee "$log" || true
        count_results "$log"
    fi
    skipped_rows
}

# Rows of the fault bar that this machine cannot show: each has saved {"why":"..."}.
skipped_rows() {
    local file
    for file in "$KV_REPORT_DIR"/*.skipped.json; do
        [ -e "$file" ] || return 0
        skip "row $(basename "$file" .skipped.json)" "$(sed 's/^{"why":"//; s/"}$//' "$file")"
    done
}

# One after the other, since they measure times; their figures are the lines that begin with "bar". Nodes are the
# release build, but for those in which a control run switches something off. Arguments are rows; none: all of them.
bars() {
    local log=$scratch/bars.log row tests=() commit
    for row in "$@"; do tests+=("${row,,}_"); done
    commit=$(git rev-parse --short=9 HEAD 2>/dev/null || echo unknown)
    # The report itself is no change to what is measured.
    [ -z "$(git status --porcelain -- . ':!reliability.json' ':!RELIABILITY.md' 2>/dev/null)" ] || commit+=-changed
    KV_BAR=1 cargo test --locked --release -p kvnode --test bars -- \
        --nocapture --test-threads=1 ${tests[@]+"${tests[@]}"} 2>&1 | tee "$log" || true
    KV_BAR=1 KV_NODE_BINARY=${CARGO_TARGET_DIR:-$root/target}/release/kvnode \
        cargo test --locked -p kvnode --features faults --test faults -- \
        --nocapture --test-threads=1 ${tests[@]+"${tests[@]}"} 2>&1 | tee --append "$log" || true
    count_results "$log"
    skipped_rows
    check env KV_COMMIT="$commit" cargo test --locked --quiet -p kvnode --features faults --test faults -- \
        --ignored --exact table::write_the_report
}

# Every row of PERFORMANCE.md for about a second, with the program as the tests have built it: that it works, not how
# fast. A peer that is not there is a line "NAME: not installed" of each row that wants it.
performance() {
    local target=${CARGO_TARGET_DIR:-$root/target} log=$scratch/performance.log missing
    check performance_rows "$target" "$log"
    while read -r missing; do
        skip "performance beside ${missing%%:*}" "not installed"
    done < <(grep -E '^  [A-Za-z]+: not installed$' "$log" | sort -u)
}

performance_rows() {
    KVNODE_BIN=$1/release/kvnode PERFORMANCE_BIN=$1/debug/performance ./bench.sh --short >"$2" 2>&1 || { cat "$2" && return 1; }
    cat "$2"
}

# Each once, to see that it works; `cargo bench` measures.
micro_benchmarks() {
    cargo test --locked --quiet --workspace --all-features --bench codecs --bench routing --bench store
}

doctests() {
    local log=$scratch/doctests.log
    cargo test --locked --workspace --all-features --doc --no-fail-fast 2>&1 | tee "$log" || true
    count_results "$log"
}

# Adds up cargo test's lines: test result: ok. 30 passed; 0 failed; 1 ignored; ...
count_results() {
    local results
    results=$(grep '^test result:' "$1") || true
    count_tests "$(sum_before passed "$results")" "$(sum_before failed "$results")" "$(sum_before ignored "$results")"
    if grep -q '^error' "$1" && [ "$(sum_before failed "$results")" = 0 ]; then
        failed=$((failed + 1))
        echo "FAILED: cargo test did not run all tests"
    fi
}

count_tests() {
    if [ $(($1 + $2)) = 0 ]; then
        failed=$((failed + 1))
        echo "FAILED: no test ran"
        return
    fi
    passed=$((passed + $1))
    failed=$((failed + $2))
    [ "$3" = 0 ] || skip "$3 tests" "marked #[ignore] in their source, with the reason" "$3"
}

# Adds up the numbers that stand before a word; 0 if there are none.
sum_before() {
    local sum=0 number
    while read -r number; do
        sum=$((sum + number))
    done < <(grep -oE "[0-9]+ ($1)" <<<"$2" | grep -oE '^[0-9]+')
    echo $sum
}

# Private items are documented too, so public text may link to them.
documentation() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --all-features --no-deps --document-private-items --quiet
}

scripts() {
    local script
    for script in launch.sh test.sh bench.sh tests/readme.sh tests/schemathesis.sh tests/prometheus.sh tests/package.sh tests/licences.sh \
        tests/tls.sh tests/blocks.sh tests/walk.sh .ci/run; do
        check bash -n "$script"
    done
    if command -v shellcheck >/dev/null; then
        check shellcheck --external-sources launch.sh test.sh bench.sh tests/readme.sh tests/schemathesis.sh tests/prometheus.sh tests/package.sh \
            tests/licences.sh tests/tls.sh tests/blocks.sh tests/walk.sh .ci/run
    else
        skip "shellcheck" "not installed"
    fi
}

release_build() {
    cargo build --locked --release -p kvnode -p examples -p kvclient --features kvclient/cli
}

# Starts the six nodes of sharding.toml on free ports and does with them what the README and the examples do.
cluster() {
    local target=${CARGO_TARGET_DIR:-$root/target} map=$scratch/sharding.toml nodes=$scratch/nodes prefix
    export KVNODE_BIN=$target/release/kvnode
    # Enough of a PATH for launch.sh to notice that cargo is not there.
    mkdir "$scratch/tools"
    ln -s "$(command -v bash)" "$(command -v dirname)" "$(command -v curl)" "$scratch/tools/"
    prefix=$(free_ports) || { check false "six free ports" && return; }
    sed "s/localhost:808/localhost:$prefix/" sharding.toml >"$map"
    refusals_before_start
    check tests/tls.sh "$target/release/kv" "$map" "$scratch/tls"
    first_hour "$target/release/kv" "$prefix"
    check start_cluster "$map"
    [ -n "$cluster_pid" ] || return 0
    check refuses 1 "port ${prefix}0 is in use" ./launch.sh "$map" "$scratch/other"
    "$KVNODE_BIN" --config "$map" --check-config >"$nodes"
    PATH=$target/release:$PATH readme "$prefix" "$nodes"
    tool "$target/release/kv" "$map"
    examples "$target/release" "$map"
    dashboard_and_alerts "$nodes"
    requests_from_description "$nodes"
    check stop_cluster 0
    # What was stored is there again, and the ports are free again.
    check start_cluster "$map"
    [ -n "$cluster_pid" ] || return 0
    check "$target/release/bulk_load" --map "$map" --verify-only --separator ';' examples/data/unicode-sample.txt
    check load_under_kills "$target/release" "$map" "$nodes"
    check stop_cluster 1
}

# launch.sh says in one line what is wrong, and starts nothing.
refusals_before_start() {
    local bad=$scratch/bad.toml line
    sed '0,/^address/s/^address/adress/' sharding.toml >"$bad"
    line=$(grep -n '^adress' "$bad" | cut -d: -f1)
    check refuses 2 "$bad:$line:1: unknown key \"adress\"" ./launch.sh "$bad" "$scratch/other"
    check refuses 1 "no C compiler" env -u KVNODE_BIN CC=no-such-compiler ./launch.sh
    check refuses 1 "cargo is missing" env -u KVNODE_BIN PATH="$scratch/tools" ./launch.sh
    check [ ! -e "$scratch/other" ]
}

# Ten ports in a row below those the kernel gives to clients, six of them used: the number without its last digit.
free_ports() {
    local attempt prefix port code
    for attempt in {1..50}; do
        prefix=$((2000 + RANDOM % 1000))
        for port in 0 1 2 3 4 5; do
            code=0
            curl --silent --max-time 1 --output /dev/null "http://localhost:$prefix$port/" || code=$?
            [ $code = 7 ] || continue 2
        done
        echo $prefix
        return 0
    done
    echo "no six free ports after $attempt attempts" >&2
    return 1
}

# refuses CODE TEXT COMMAND...: the command ends with that exit code, and what it says has that text.
refuses() {
    local want=$1 text=$2 said code=0
    shift 2
    said=$("$@" 2>&1) || code=$?
    if [ $code != "$want" ] || [[ $said != *"$text"* ]]; then
        printf 'expected exit code %s and: %s\ngot exit code %s and: %s\n' "$want" "$text" $code "$said"
        return 1
    fi
}

start_cluster() {
    local log=$scratch/launch.log deadline=$((SECONDS + CLUSTER_SECONDS))
    # Emptied here: what an earlier cluster said must not be taken for this one.
    : >"$log"
    ./launch.sh "$1" "$scratch/data" >"$log" 2>&1 &
    cluster_pid=$!
    until grep -q 'nodes are ready' "$log"; do
        if ! kill -0 "$cluster_pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            cat "$log"
            stop_cluster 0 || true
            return 1
        fi
        sleep 0.1
    done
}

# stop_cluster CODE: the code that launch.sh shall end with; 1 if a node of it was killed.
stop_cluster() {
    local want=$1 code=0 pid result=0
    for pid in ${restarted[@]+"${restarted[@]}"}; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" || result=1
    done
    restarted=()
    [ -n "$cluster_pid" ] || return $result
    kill -TERM "$cluster_pid" 2>/dev/null || true
    wait "$cluster_pid" || code=$?
    cluster_pid=
    [ $code = "$want" ] || result=1
    [ $result = 0 ] || cat "$scratch/launch.log"
    return $result
}

# The primary and the replica of shard2 are killed while records are loaded, and started again; then every record
# is on every node.
load_under_kills() {
    local bin=$1 map=$2 nodes=$3 file=$UNICODE_DATA load result=0 address shard pid
    [ -r "$file" ] || file=examples/data/unicode-sample.txt
    # Four at a time make the load last some seconds.
    "$bin/bulk_load" --map "$map" --separator ';' --in-flight 4 --verify "$file" &
    load=$!
    while read -r address _ shard; do
        [ "$shard" = shard2 ] || continue
        sleep 0.5
        pid=$(awk -v address="$address" '$1 == address { print $4 }' "$scratch/launch.log")
        kill -KILL "$pid"
        sleep 0.5
        "$KVNODE_BIN" --config "$map" --address "$address" --data "$scratch/data/${address##*:}" \
            >>"$scratch/data/${address##*:}.log" 2>&1 </dev/null &
        restarted+=($!)
    done <"$nodes"
    wait $load || result=1
    grep -q 'signal 9' "$scratch/launch.log" || { echo "launch.sh says nothing of the nodes that died" && result=1; }
    return $result
}

# readme PREFIX NODES: both pages whose blocks may run in any order of nodes.
readme() {
    local log=$scratch/readme.log page last
    for page in README.md docs/tasks.md; do
        tests/readme.sh "$page" "$1" "$2" | tee "$log" || true
        last=$(tail -n 1 "$log")
        count_tests "$(sum_before passed "$last")" "$(sum_before failed "$last")" 0
    done
}

# The walk of a new user, as docs/first-hour.md tells it, with a cluster of its own.
first_hour() {
    local log=$scratch/walk.log last
    tests/walk.sh "$1" "$2" "$scratch/walk" | tee "$log" || true
    last=$(tail -n 1 "$log")
    [[ $last == *" passed, "*" failed, "* ]] || last="0 passed, 1 failed"
    if grep -q '^skipped: ' "$log"; then
        skip "the page in docs/first-hour.md" "$(sed -n 's/^skipped: //p' "$log")" "$(sum_before skipped "$last")"
    fi
    count_tests "$(sum_before passed "$last")" "$(sum_before failed "$last")" 0
}

# Every answer is one that /openapi.json describes.
requests_from_description() {
    local log=$scratch/schemathesis.log last
    if ! command -v schemathesis >/dev/null; then
        skip "requests made from /openapi.json" "schemathesis is not installed" 4
        return
    fi
    KV_BAR=$([ "$bar" = no ] || echo 1) tests/schemathesis.sh "$1" "$scratch/data" | tee "$log" || true
    last=$(tail -n 1 "$log")
    count_tests "$(sum_before passed "$last")" "$(sum_before failed "$last")" 0
}

# What deploy/ asks of /metrics is there, and its alerts say what they should.
dashboard_and_alerts() {
    local log=$scratch/prometheus.log last
    tests/prometheus.sh "$1" | tee "$log" || true
    grep -q '^skipped: ' "$log" && skip "promtool on /metrics and the alerts" "promtool is not installed" 3
    last=$(tail -n 1 "$log")
    [[ $last == *" passed, "*" failed" ]] || last="0 passed, 1 failed"
    count_tests "$(sum_before passed "$last")" "$(sum_before failed "$last")" 0
}

# The tool kv, as a script uses it.
tool() {
    local kv=$1 value=$scratch/value
    export KV_MAP=$2
    head -c 300000 /dev/urandom >"$value"
    check tool_bytes "$kv" "$value"
    check prints 5 "$kv" incr test:counter 5
    check prints 3 "$kv" incr test:counter -2
    check refuses 1 "absent: test:nobody" "$kv" get test:nobody
    check refuses 2 "sharding.toml" env -C "$scratch/data" -u KV_MAP "$kv" status
    check refuses 3 "a condition did not hold" "$kv" put test:counter 1 --if-absent
    check refuses 0 "shard " "$kv" route test:counter
    check prints 6 tool_ready "$kv"
    check prints test:bytes tool_first "$kv"
    check tool_watch "$kv"
    check tool_past "$kv"
    check tool_bench "$kv"
    check tool_backup "$kv"
    check tool_lines "$kv"
    check "$kv" map
    check "$kv" delete test:counter test:bytes $'test:\xff'
    unset KV_MAP
}

# A key is changed, made and removed; the log knows what they were, and they can be put back.
tool_past() {
    local kv=$1 before
    "$kv" put past:changed 1 >/dev/null && "$kv" put past:removed $'two\tcolumns' --ttl 1h >/dev/null &&
        before=$(tool_moment "$kv") &&
        "$kv" put past:changed 2 >/dev/null && "$kv" put past:new 1 >/dev/null && "$kv" delete past:removed >/dev/null &&
        [ "$("$kv" history past:changed | cut -f 3,4 | tr '\t\n' '  ')" = "put 1 put 2 " ] &&
        [ "$("$kv" undo --prefix past: --to "$before" | cut -f 1,2 | tr '\t\n' '  ')" = \
            "put past:changed delete past:new put past:removed " ] &&
        [ "$("$kv" get past:changed)" = 2 ] &&
        "$kv" undo --prefix past: --to "$before" --yes >/dev/null &&
        [ "$("$kv" scan past: | tr '\t\n' '  ')" = 'past:changed 1 past:removed two\tcolumns ' ] &&
        "$kv" get --json past:removed | grep -q '"ttl_ms":3[0-9]*}' &&
        "$kv" delete past:changed past:removed >/dev/null
}

# A token with the positions of all shards: what a watch from now on says when it listens.
tool_moment() {
    { timeout 1 "$1" watch past: 2>&1 || true; } | grep -o 'from kv1[0-9_.]*' | head -n 1 | cut -d ' ' -f 2
}

# prints TEXT COMMAND...: the command succeeds and prints that line.
prints() {
    local want=$1 printed
    shift
    printed=$("$@") || return 1
    [ "$printed" = "$want" ] || { echo "printed: $printed" && return 1; }
}

tool_bytes() {
    local kv=$1 value=$2
    "$kv" put test:bytes --file "$value" >/dev/null &&
        "$kv" get test:bytes | cmp - "$value" &&
        "$kv" put $'test:\xff' <"$value" >/dev/null &&
        "$kv" get --key-format escaped 'test:\xff' | cmp - "$value"
}

tool_ready() {
    "$1" status | grep -c ' ready '
}

# Whoever reads a scan may go; with pipefail the scan's own exit code counts.
tool_first() {
    "$1" scan test: --keys-only | head -n 1
}

# A watch in the background that ends after two changes; both are there, in order.
tool_watch() {
    local kv=$1 out=$scratch/watch.out log=$scratch/watch.log watch deadline=$((SECONDS + 10)) code=0
    "$kv" watch test:counter --count 2 >"$out" 2>"$log" &
    watch=$!
    until grep -q '^kv: watching from' "$log" || [ $SECONDS -ge $deadline ]; do sleep 0.1; done
    "$kv" put test:counter 7 >/dev/null
    "$kv" incr test:counter >/dev/null
    wait $watch || code=$?
    if [ $code != 0 ] || [ "$(cut -f 3 "$out" | tr '\n' ' ')" != "7 8 " ]; then
        cat "$out" "$log"
        return 1
    fi
}

# Every workload for a moment; then its keys are gone.
tool_bench() {
    local kv=$1 workload
    for workload in a b c d e f; do
        "$kv" bench $workload --keys 2000 --ops 2000 --warm-up 0 --quiet || return 1
    done
    "$kv" bench --clean-up && [ -z "$("$kv" scan bench: --keys-only)" ]
}

# A backup, brought up to date, then restored over what was written since; a time before it is refused.
tool_backup() {
    local kv=$1 dir=$scratch/backup before=$scratch/backup.before
    "$kv" put test:kept one >/dev/null && "$kv" backup "$dir" &&
        "$kv" put test:kept two >/dev/null && "$kv" backup "$dir" >/dev/null &&
        "$kv" scan --json | cut -d '"' -f 1-8 >"$before" &&
        "$kv" put test:kept three >/dev/null && "$kv" backup "$dir" --verify >/dev/null || return 1
    refuses 3 "the target is not empty" "$kv" restore "$dir" &&
        refuses 2 "begins at" "$kv" restore "$dir" --to-time 2001-01-01T00:00:00Z &&
        "$kv" restore "$dir" --into-non-empty &&
        "$kv" scan --json | cut -d '"' -f 1-8 | cmp - "$before"
}

# What is exported, removed and imported is what it was.
tool_lines() {
    local kv=$1 lines=$scratch/lines.ndjson
    "$kv" export --prefix test: --file "$lines" &&
        "$kv" delete --key-format escaped 'test:\xff' test:kept >/dev/null &&
        "$kv" import "$lines" --on-conflict skip &&
        "$kv" export --prefix test: | cmp - "$lines" &&
        "$kv" delete test:kept >/dev/null
}

examples() {
    local bin=$1 map=$2
    check "$bin/quickstart" --map "$map"
    check "$bin/counter" --map "$map"
    check "$bin/read_your_writes" --map "$map"
    check "$bin/sessions" --map "$map"
    check "$bin/live_feed" --map "$map"
    check "$bin/custom_policy" --map "$map"
    check "$bin/explain" --map "$map"
    check web_sessions "$bin/web_sessions" "$map"
    check "$bin/measure" --map "$map" --keys 2000 --seconds 1
    check "$bin/measure" --map "$map" --keys 2000 --seconds "$([ "$bar" = yes ] && echo 10 || echo 1)" --coalescing
    check "$bin/bulk_load" --map "$map" --separator ';' --verify examples/data/unicode-sample.txt
    if [ -r "$UNICODE_DATA" ]; then
        check "$bin/bulk_load" --map "$map" --separator ';' --verify "$UNICODE_DATA"
    else
        skip "bulk_load of the whole UnicodeData.txt" "$UNICODE_DATA is not there (package unicode-data)"
    fi
    programs_without_a_cluster "$bin"
}

# web_sessions PROGRAM MAP: twenty visits of one browser, each of which sees the one before; then another browser.
web_sessions() {
    local log=$scratch/web_sessions.log jar=$scratch/cookies pid address visit page result=0
    "$1" --map "$2" --listen 127.0.0.1:0 >"$log" 2>&1 &
    pid=$!
    local deadline=$((SECONDS + 10))
    until address=$(grep -oE 'http://[0-9.:]+/' "$log") || [ $SECONDS -ge $deadline ]; do sleep 0.1; done
    for visit in {1..20}; do
        page=$(curl --silent --max-time 10 --cookie-jar "$jar" --cookie "$jar" "$address") || result=1
        [[ $page = *"Visits: $visit."* ]] || { echo "visit $visit: $page" && result=1; }
    done
    page=$(curl --silent --max-time 10 --cookie-jar "$jar" --cookie "$jar" --data 'name=<Ada>' "$address") || result=1
    [[ $page = *"Hello, &lt;Ada&gt;. Visits: 20."* ]] || { echo "named: $page" && result=1; }
    page=$(curl --silent --max-time 10 "$address") || result=1
    [[ $page = *"Hello, stranger. Visits: 1."* ]] || { echo "a stranger: $page" && result=1; }
    kill -TERM $pid
    wait $pid || result=1
    [ $result = 0 ] || cat "$log"
    return $result
}

# Nobody listens on port 1.
programs_without_a_cluster() {
    local bin=$1 map=$scratch/nobody.toml program
    printf '[[shards]]\nname = "a"\nidx = 0\naddress = "localhost:1"\n' >"$map"
    for program in quickstart counter read_your_writes sessions live_feed custom_policy explain web_sessions measure; do
        check refuses 1 "no cluster answers at localhost:1" "$bin/$program" --map "$map"
    done
    check refuses 1 "no cluster answers at localhost:1" \
        "$bin/bulk_load" --map "$map" --separator ';' examples/data/unicode-sample.txt
}

# The client of one file for other languages to start from, against nodes that its test starts by itself.
python_client() {
    local target=${CARGO_TARGET_DIR:-$root/target} log=$scratch/python.log ran bad left_out
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
        skip "the Python client" "python3, 3.9 or newer, is not installed"
        return
    fi
    KVNODE_BIN=$target/release/kvnode PYTHONDONTWRITEBYTECODE=1 \
        python3 examples/python/test_kv.py 2>&1 | tee "$log" || true
    # FAIL: test_atomic (...), ERROR: ...; Ran 30 tests in 9.1s; at the end OK (skipped=1), or FAILED (failures=1)
    ran=$(sed -nE 's/^Ran ([0-9]+) tests? in .*/\1/p' "$log" | tail -n 1)
    bad=$(grep -cE '^(FAIL|ERROR): ' "$log") || true
    [ "$bad" != 0 ] || grep -q '^OK' "$log" || bad=1
    left_out=$(sed -nE 's/^(OK|FAILED) \(.*skipped=([0-9]+).*/\2/p' "$log")
    [ -z "$left_out" ] || skip "TLS of the Python client" "openssl is not installed" "$left_out"
    ran=$((${ran:-0} - ${left_out:-0} - bad))
    count_tests $((ran > 0 ? ran : 0)) "$bad" 0
}

summary() {
    local line
    printf '\n=== Summary (%s s)\n' $SECONDS
    printf '%s\n' "${report[@]}"
    for line in ${skips[@]+"${skips[@]}"}; do
        printf 'skipped  %s\n' "$line"
    done
    printf '\n%s passed, %s failed, %s skipped\n' $passed $failed $skipped
    [ $failed = 0 ]
}

clean_up() {
    local code=$?
    # Whatever still runs here was interrupted; how it ends says nothing.
    stop_cluster 0 >/dev/null || true
    rm -rf "$scratch"
    exit $code
}

main "$@"
