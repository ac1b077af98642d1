#!/usr/bin/env bash
# Builds the fuzz targets with plain cargo and runs one: `fuzz/run.sh TARGET [LIBFUZZER OPTION …]`;
# `fuzz/run.sh build` only builds. See README.md.
set -euo pipefail
cd "$(dirname "$0")"

# The flags of cargo-fuzz but for a sanitizer, since there is no unsafe code to check; none of them
# needs a nightly compiler. With --target they do not apply to build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --locked --target "$host"
[ "$1" != build ] || exit 0

target=$1
shift
corpus=${FUZZ_CORPUS:-corpus}/$target
mkdir -p "$corpus" "artifacts/$target"
# The seed corpus. The other targets read bytes as choices, so they need no seeds, and long inputs
# are useful from the start.
case $target in
  # Without Go's, which is too large to be worth changing.
  module) find ../examples/rooms/wasm -name '*.wasm' ! -name '*-go.wasm' -exec cp {} "$corpus" \; ;;
  *) set -- -len_control=0 "$@" ;;
esac
exec "${CARGO_TARGET_DIR:-target}/$host/release/$target" \
  -artifact_prefix="artifacts/$target/" -timeout=30 "$@" "$corpus"
