#!/usr/bin/env bash
# Builds timer-aper.wasm. Needs cargo with the target wasm32-wasip1 (CARGO and RUSTC are others to use).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cargo=${CARGO:-cargo}
target=wasm32-wasip1
target_dir=${CARGO_TARGET_DIR:-$PWD/target}

# The sources have to be there before their folders can be looked up.
"$cargo" fetch --locked --target $target
# Panic messages name source files, whose paths are this machine's. The last match wins.
sources=$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/rust
home=${CARGO_HOME:-$HOME/.cargo}
flags=("-Clink-arg=--allow-undefined" "--remap-path-prefix=$HOME=/home" "--remap-path-prefix=$home=/cargo")
for registry in "$home"/registry/src/*; do flags+=("--remap-path-prefix=$registry=/crates"); done
flags+=("--remap-path-prefix=$sources=/rustc")
if [ -d "$sources" ]; then flags+=("--remap-path-prefix=$(readlink -f "$sources")=/rustc"); fi

"$cargo" build --release --locked --target $target --target-dir "$target_dir" \
  --config "target.$target.rustflags=[$(printf '"%s",' "${flags[@]}")]"
install -m 644 "$target_dir/$target/release/timer_aper.wasm" timer-aper.wasm
