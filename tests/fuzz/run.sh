#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: fuzzes what reads what others wrote, each target that long. Needs g++ (for libFuzzer) and no other compiler
# than the usual one. Findings lie in tests/fuzz/artifacts/TARGET; what is mended goes to tests/fuzz/seeds/TARGET, where `cargo test` runs it.
set -euo pipefail
cd "$(dirname "$0")"
seconds="$1"
shift
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(loader template journal bundle tombstone signers)
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16 --cfg fuzzing"
cargo build --release --target x86_64-unknown-linux-gnu --target-dir target
for target in "${targets[@]}"; do
    mkdir -p "artifacts/$target" "corpus/$target" "seeds/$target"
    "target/x86_64-unknown-linux-gnu/release/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target"
done
