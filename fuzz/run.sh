#!/usr/bin/env bash
# Builds a fuzz target with plain cargo and runs it: `fuzz/run.sh TARGET [OPTION OF LIBFUZZER …]`;
# `fuzz/run.sh build` builds them all. See README.md.
set -euo pipefail
cd "$(dirname "$0")"

# What cargo-fuzz would pass, but for a sanitizer: there is no unsafe code to look after. None of it
# needs a nightly compiler. With --target, build scripts go without.
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
# What the corpus begins with. Elsewhere any bytes will do: they are read as choices, and more of
# them are more choices, so that short inputs need not come first.
case $target in
  module) cp ../examples/rooms/wasm/*.wasm "$corpus" ;;
  *) set -- -len_control=0 "$@" ;;
esac
exec "${CARGO_TARGET_DIR:-target}/$host/release/$target" \
  -artifact_prefix="artifacts/$target/" -timeout=30 "$@" "$corpus"
