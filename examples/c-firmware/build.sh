#!/bin/sh
# Builds the firmware with clang and lld:
#
#   build.sh LIBRARY PROGRAM [OPTION OF CLANG ...]
#
# LIBRARY is libstateroom_wasmi.a, built without std for thumbv8m.main-none-eabihf.
set -eu
library=$1 program=$2
shift 2
cd "$(dirname "$0")"
clang --target=thumbv8m.main-none-eabihf -mcpu=cortex-m33 -std=c11 -Os -Wall -Wextra -ffreestanding \
  -I ../../crates/capi/include -nostdlib -fuse-ld=lld -Wl,-T,board.ld,--gc-sections "$@" \
  board.c heap.c play.c modules.S "$library" -o "$program"
