#!/usr/bin/env bash
# Fuzzes what strangers send, each target for so many seconds, all at the same time: fuzz/run.sh [SECONDS] [TARGET...]
#
#   ticket     a ticket, which somebody pasted
#   catalog    a catalog and its changes
#   container  the frames of a track, in each container that is read
#
# A target for the messages of rooms is to come with the rooms.
#
# Stable Rust will do: what cargo-fuzz asks of a nightly one is the address sanitizer, and there is next to no unsafe code
# here. New inputs that reach new code are kept in fuzz/target/corpus; what fails is named and kept beside it, and is tried
# again by: fuzz/target/*/debug/TARGET FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- ticket catalog container
export CARGO_TARGET_DIR=$PWD/target
export RUSTFLAGS='--cfg fuzzing' RUSTC_WRAPPER=$PWD/rustc.sh
# With --target the flags are not those of build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
# The versions that everything else is built with; Cargo adds what only this needs.
cp ../Cargo.lock Cargo.lock
cargo build --target "$host"
failed=0
jobs=()
trap '[ ${#jobs[@]} = 0 ] || kill "${jobs[@]}" 2>/dev/null || true' EXIT
for target in "$@"; do
    mkdir -p "target/corpus/$target"
    "target/$host/debug/$target" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="target/$target-" "target/corpus/$target" "corpus/$target" \
        >"target/$target.log" 2>&1 &
    jobs+=($!)
done
for target in "$@"; do
    wait "${jobs[0]}" || { failed=1; echo "$target FAILED:"; tail -n 60 "target/$target.log"; }
    jobs=("${jobs[@]:1}")
    # How much of the code the corpus reached, and then the fuzzer.
    grep -E '	INITED|^Done|^stat::average' "target/$target.log" | sed "s/^/$target: /" || true
    tac "target/$target.log" | grep -m 1 ' cov: ' | sed "s/^/$target: /" || true
done
exit $failed
