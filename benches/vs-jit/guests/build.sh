#!/usr/bin/env bash
# Builds the guests of this folder into wasm/. Needs clang and wasm-ld (the package lld), 14 or newer;
# CLANG is the clang to use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rooms=$here/../../../examples/rooms/c
mkdir -p "$here/wasm"
"${CLANG:-clang}" --target=wasm32 -std=c11 -O2 -Wall -Wextra -Werror -I "$rooms" \
  -ffreestanding -fno-builtin -nostdlib -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first \
  -Wl,-z,stack-size=4096 -Wl,--export=JAMSOCKET_API_VERSION -Wl,--export=JAMSOCKET_API_PROTOCOL \
  -o "$here/wasm/compute.wasm" "$here/compute.c" "$rooms/malloc.c"
chmod a-x "$here/wasm/compute.wasm"
