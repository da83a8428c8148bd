#!/usr/bin/env bash
# Packages kvclient and kvnode as a registry would get them, and holds both against a program outside of the workspace: the
# one in kvclient/README.md. What a package lacks is missed here, not by whoever uses it. test.sh calls this.
#
#   tests/package.sh
#
# Asks no registry: third-party crates come from cargo's cache, at the versions of Cargo.lock. Writes to the target
# directory alone. Prints what fails, then "N passed, N failed"; exit code 1 if anything failed.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
cd "$root"
CARGO_TARGET_DIR=$(cd "$root" && mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
export CARGO_TARGET_DIR CARGO_NET_OFFLINE=true

passed=0
failed=0
# Always the same place: at another one cargo would take them for other packages, and keep what it made of each.
scratch=$CARGO_TARGET_DIR/package-check
rm -rf "$scratch"
mkdir -p "$scratch"
trap 'rm -rf "$scratch"' EXIT

main() {
    check packages
    check whole kvclient LICENSE-MIT LICENSE-APACHE README.md src/lib.rs src/bin/kv/main.rs
    check whole kvnode LICENSE-MIT LICENSE-APACHE NOTICE README.md src/main.rs src/http/page/vendor/uPlot.LICENSE
    check a_program_outside
    check a_program_without_tls
    check the_tool_kv
    check control_a_package_that_lacks_a_file
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}

check() {
    # In a shell of its own, where the first command that fails ends the check; `&&` would switch that off.
    local code
    set +e
    (set -e && "$@") >"$scratch/said" 2>&1
    code=$?
    set -e
    if [ $code = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $*"
        tail -n 40 "$scratch/said"
    fi
}

# Every member but the examples, which are no library and no service.
packages() {
    local name
    cargo package --workspace --exclude examples --no-verify --locked --allow-dirty
    for name in kvclient kvnode; do
        tar -xzf "$CARGO_TARGET_DIR/package/$name-"[0-9]*.crate -C "$scratch"
        mv "$scratch/$name-"[0-9]* "$scratch/$name"
    done
}

# whole NAME FILE...: the files are there, as files and not as links to elsewhere.
whole() {
    local name=$1 file
    shift
    for file in "$@"; do
        [ -s "$scratch/$name/$file" ] && [ ! -L "$scratch/$name/$file" ] && continue
        echo "$file is not in the package of $name"
        return 1
    done
}

# The program of the client's README, with the node beside it, so that one look checks both packages.
a_program_outside() {
    outside kvclient
    cd "$scratch/outside"
    cargo check --quiet
}

# outside DIRECTORY: a program that uses the packages, the client's from there.
outside() {
    mkdir -p "$scratch/outside/src"
    cp "$root/Cargo.lock" "$scratch/outside/"
    # shellcheck disable=SC2016  # backquotes of Markdown
    sed -n '/^```rust$/,/^```$/p' "$root/kvclient/README.md" | grep -v '^```' >"$scratch/outside/src/main.rs"
    cat >"$scratch/outside/Cargo.toml" <<TOML
[package]
name = "outside"
edition = "2024"

[dependencies]
kvclient = { version = "*", features = ["json", "blocking"] }
kvnode = { path = "$scratch/kvnode" }
tokio = { version = "1", default-features = false, features = ["macros", "rt-multi-thread"] }

[patch.crates-io]
kvclient = { path = "$scratch/$1" }

[workspace]
TOML
}

# It has none of TLS, which would reach into all that it links, and says so when it is asked for some.
a_program_without_tls() {
    mkdir -p "$scratch/plain/src"
    cp "$root/Cargo.lock" "$scratch/plain/"
    cat >"$scratch/plain/src/main.rs" <<'RUST'
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let refused = kvclient::Client::connect(["https://localhost:1"]).await;
    println!("{}", refused.expect_err("no node"));
}
RUST
    cat >"$scratch/plain/Cargo.toml" <<TOML
[package]
name = "plain"
edition = "2024"

[dependencies]
kvclient = { path = "$scratch/kvclient" }
tokio = { version = "1", default-features = false, features = ["macros", "rt"] }

[workspace]
TOML
    cd "$scratch/plain"
    if cargo tree --prefix none | grep -E '^(rustls|ring|hyper-rustls) '; then
        echo "crates of TLS in a program without the feature"
        return 1
    fi
    cargo run --quiet 2>&1 | tee "$scratch/answer"
    grep -q 'https://localhost:1.*feature .tls. of kvclient' "$scratch/answer"
}

the_tool_kv() {
    cp -r "$scratch/kvclient" "$scratch/tool"
    cp "$root/Cargo.lock" "$scratch/tool/"
    cd "$scratch/tool"
    # The target directory may lie inside of this workspace, and a package there would be taken for a member of it.
    printf '\n[workspace]\n' >>Cargo.toml
    cargo check --quiet --bin kv --features cli
}

# Without it, nobody would know whether the checks above can fail.
control_a_package_that_lacks_a_file() {
    cp -r "$scratch/kvclient" "$scratch/lacking"
    rm "$scratch/lacking/src/slot.rs"
    outside lacking
    cd "$scratch/outside"
    ! cargo check --quiet
}

main
