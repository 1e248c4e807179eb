#!/usr/bin/env bash
# Builds the fuzz targets and runs each for so many seconds: fuzz/run.sh 60. What it finds is in fuzz/artifacts; a
# finding that is fixed becomes a seed. The flags are those of cargo-fuzz without a sanitizer (there is no `unsafe` to watch),
# which the stable compiler takes.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
host=$(rustc -vV | sed -n 's/^host: //p')

# The crates that the program is made of, in their versions. cargo adds what fuzzing needs besides.
cp ../Cargo.lock Cargo.lock

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
RUSTFLAGS="$coverage" cargo build --quiet --release --target "$host" --target-dir target

running=()
for target in request response; do
    mkdir -p "corpus/$target" "artifacts/$target"
    "target/$host/release/$target" "corpus/$target" "seeds/$target" -max_total_time="$seconds" -max_len=4096 \
        -timeout=10 -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"target/$target.log" 2>&1 &
    running+=($!)
done
failed=0
for index in 0 1; do
    target=$([ "$index" = 0 ] && echo request || echo response)
    if wait "${running[$index]}"; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "target/$target.log") inputs, nothing found"
    else
        tail -n 40 "target/$target.log"
        echo "$target: broke a law; the input is in fuzz/artifacts/$target" >&2
        failed=1
    fi
done
exit "$failed"
