#!/usr/bin/env bash
# Builds the guests of this folder into wasm/. Needs clang and wasm-ld (the package lld), 14 or newer
# (CLANG is the clang to use), wat2wasm (the package wabt), node and npm.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rooms=$here/../../../examples/rooms
mkdir -p "$here/wasm"
"${CLANG:-clang}" --target=wasm32 -std=c11 -O2 -Wall -Wextra -Werror -I "$rooms/c" \
  -ffreestanding -fno-builtin -nostdlib -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first \
  -Wl,-z,stack-size=4096 -Wl,--export=JAMSOCKET_API_VERSION -Wl,--export=JAMSOCKET_API_PROTOCOL \
  -o "$here/wasm/compute.wasm" "$here/compute.c" "$rooms/c/malloc.c"
chmod a-x "$here/wasm/compute.wasm"

for guest in echo-arena-wat echo-traps-wat; do
  wat2wasm "$here/$guest.wat" -o "$here/wasm/$guest.wasm"
done

cd "$rooms/assemblyscript"
npm ci --no-audit --no-fund --loglevel=error
# A runtime that collects while it allocates, unlike that of the example rooms.
node node_modules/assemblyscript/bin/asc.js "$here/history-assemblyscript.ts" \
  --optimizeLevel 3 --noAssert --runtime incremental --use abort= \
  --outFile "$here/wasm/history-assemblyscript.wasm"
