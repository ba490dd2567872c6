#!/bin/sh
# The compiler, with the counters that the fuzzer goes by in the crates that take apart what a stranger sends: ours, and
# those that read tickets, catalogs and containers. What is built for build scripts and macros has no --target, and none.
name='' target=''
previous=''
for argument; do
    case $previous in
    --crate-name) name=$argument ;;
    --target) target=$argument ;;
    esac
    previous=$argument
done
case $target:$name in
:*) ;;
*:iroh_live | *:ticket | *:catalog | *:container | *:hang | *:moq_* | *:mp4_atom | *:serde_json | *:postcard | \
    *:percent_encoding | *:data_encoding)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
    ;;
esac
exec "$@"
