#!/usr/bin/env bash
# Makes the profile by which deploy/program.sh compiles the program: how often its functions run, and their parts.
#   deploy/profile.sh
# builds a program that counts, has it serve what benchmarks ask and follow an API server as tests do, and writes deploy/floodway.profdata.xz,
# and into deploy/floodway.profdata.txt for which Rust, target and crates that is. What is not run here, counts as never run: what requests
# pass through has to be among the rows.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO=${CARGO:-cargo}

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

command -v xz >/dev/null || fail "xz is missing. Install it: 'apt-get install xz-utils'"
# LLVM's own tool reads what the program writes, if it is new enough for this Rust: tried before half an hour is spent.
trial=$(mktemp -d) merge=
trap 'rm -rf "$trial"' EXIT
rustc --crate-name trial -Cprofile-generate="$trial" -o "$trial/trial" - <<<'fn main() {}' && "$trial/trial"
for tool in "$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-profdata" llvm-profdata{-{30..19},}; do
    if "$tool" merge --output="$trial/profdata" "$trial"/*.profraw 2>/dev/null; then merge=$tool && break; fi
done
[ -n "$merge" ] || fail "no llvm-profdata is here that is new enough for this Rust. Install it: 'rustup component add llvm-tools', or on Debian: 'apt-get install llvm-19'"

counts=$PWD/target/profile
rm -rf "$counts"
FLOODWAY=$(deploy/program.sh --counting "$counts")
case $FLOODWAY in /*) ;; *) FLOODWAY=$PWD/$FLOODWAY ;; esac
export FLOODWAY
rm -rf "$counts"
bench() { "$CARGO" bench --quiet --profile dev --bench peers -- --only floodway --rounds 1 "$@" >/dev/null; }
bench --seconds 2 --rows 'http1*,resilience-on,policies-on,64k,1m,download,upload,http2,grpc,tls-*,sse-fan,ws-echo'
bench --seconds 1 --scale 0.1 --rows 'changes,after,fault-*'
tests/tools/build.sh
"$CARGO" test --quiet --test apiserver -- source:: sidecar:: status:: traffic::
for mode in demo sidecar; do
    flags=(--access-log=off)
    if [ $mode = sidecar ]; then flags+=(--dir=examples/demo --namespace=demo --app-port=9 --admin=127.0.0.1:0 --inbound=127.0.0.1:0 --outbound=127.0.0.1:0); fi
    timeout --signal=INT 10 "$FLOODWAY" $mode "${flags[@]}" >/dev/null || [ $? = 124 ]
done

"$merge" merge --output="$counts/floodway.profdata" "$counts"/*.profraw
xz -9e --stdout "$counts/floodway.profdata" >deploy/floodway.profdata.xz
deploy/program.sh --profile >deploy/floodway.profdata.txt
echo "deploy/floodway.profdata.xz is new: $("$merge" show "$counts/floodway.profdata" | sed -n 's/^Total functions: //p') functions. 'make image-check' and 'make bench' say what it does."
