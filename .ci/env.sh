# Where the checks work and with which tools; for .ci/run and .ci/install.
#
#   CI_CACHE    target folders, tools and corpora, outside of the checkout: the next run uses them
#               again (default: ~/.cache/stateroom-wasmi-ci)
#   CROSS_DIR   a folder with `cargo`, `toolchain.sh` and `qemu.sh`, for machines where rustup or apt
#               cannot install targets and QEMU: `cargo` also builds the standard library of its
#               --target, `toolchain.sh` and `qemu.sh` unpack tools and print where they are
#               (default: ../shared/cross if that exists; empty: rustup and apt)

root=$PWD
cache=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stateroom-wasmi-ci}
default_cross=$root/../shared/cross
[ -d "$default_cross" ] || default_cross=
cross_dir=${CROSS_DIR-$default_cross}
[ -z "$cross_dir" ] || cross_dir=$(cd "$cross_dir" && pwd)

mkdir -p "$cache/bin"
export PATH=$cache/bin:$PATH
export CARGO_TARGET_DIR=$cache/target
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

# Fails unless the commands are there.
need() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || { echo "$command is missing: run .ci/install"; return 1; }
  done
}

# Whether rustup's toolchain can build for a target by itself.
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# Where cargo_for puts what it builds for a target.
dir_for() { if has_target "$1" || [ -z "$cross_dir" ]; then echo "$CARGO_TARGET_DIR"; else echo "$cache/cross"; fi; }

# cargo for another target: cargo_for TARGET COMMAND ARGUMENTS…
cargo_for() {
  local target=$1 command=$2
  shift 2
  if has_target "$target"; then
    cargo "$command" --target "$target" "$@"
  elif [ -n "$cross_dir" ]; then
    # A target folder of its own, since two compilers in one would rebuild each other's work.
    CARGO_TARGET_DIR=$cache/cross "$cross_dir/cargo" "$command" --target "$target" "$@"
  else
    echo "the target $target is missing: run .ci/install"
    return 1
  fi
}

# The same for targets with an operating system: with the whole standard library.
cargo_with_std_for() {
  local target=$1 command=$2 std=()
  shift 2
  has_target "$target" || std=(-Zbuild-std=std,panic_unwind)
  cargo_for "$target" "$command" "${std[@]}" "$@"
}
