# The steps of .ci/run; each is a function that fails if something is wrong.

root=$PWD
# Target folders outside of the checkout are used again by the next run.
cache=${CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stateroom-wasmi-ci}
mkdir -p "$cache"
export CARGO_TARGET_DIR=$cache/target
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
# Where rustup has no standard library for a target, a compiler that builds it does the job.
cross=$root/../shared/cross/cargo

# Whether rustup's toolchain can build for a target by itself.
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# Where cargo_for puts what it builds for a target.
dir_for() { if ! has_target "$1" && [ -x "$cross" ]; then echo "$cache/cross"; else echo "$CARGO_TARGET_DIR"; fi; }

# cargo for another target: cargo_for TARGET COMMAND ARGUMENTS…
cargo_for() {
  local target=$1 command=$2
  shift 2
  if has_target "$target"; then
    cargo "$command" --target "$target" "$@"
  elif [ -x "$cross" ]; then
    CARGO_TARGET_DIR=$cache/cross "$cross" "$command" --target "$target" "$@"
  else
    rustup target add "$target"
    cargo "$command" --target "$target" "$@"
  fi
}

step_tools() {
  local missing=() command
  for command in clang:clang wasm-ld:lld wat2wasm:wabt chromium:chromium; do
    command -v "${command%%:*}" >/dev/null || missing+=("${command##*:}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
  fi
  for command in node npm; do
    command -v "$command" >/dev/null || { echo "$command is needed"; exit 1; }
  done
  rustc --version
}

# The README's command; then the core alone, by its own features.
step_tests() {
  cargo test --workspace
  cargo test -p stateroom-wasmi-link --features bridge,embedded-io
  cargo test --lib --test it --test alloc
  cargo test --features embedded-hal,rollback,unchecked --test it
  # Optimised: another way through the interpreter.
  cargo test --release --features simd --test it
  # What a user's release profile may be: without link-time optimisation, in many units.
  cargo test --profile plain-release --features simd --test it -- what_runs_long stack::
}

step_format() {
  cargo fmt --all -- --check
  if [ -f benches/vs-jit/Cargo.toml ]; then cargo fmt --manifest-path benches/vs-jit/Cargo.toml -- --check; fi
  cargo fmt --manifest-path fuzz/Cargo.toml -- --check
}

step_lint() {
  local features
  for features in "" log std simd wat trim rollback unchecked embedded-hal tokio; do
    cargo clippy -q --all-targets --features "$features" -- -D warnings
  done
  cargo clippy -q --lib --no-default-features --features unchecked -- -D warnings
  for features in "" bridge embedded-io log; do
    cargo clippy -q -p stateroom-wasmi-link --all-targets --features "$features" -- -D warnings
  done
  for features in "" board; do
    cargo clippy -q -p stateroom-wasmi-server --all-targets --features "$features" -- -D warnings
  done
  cargo clippy -q -p stateroom-wasmi --no-default-features -- -D warnings
  cargo clippy -q --workspace --all-targets --all-features -- -D warnings
}

# The core stands alone: nothing of it names a crate that stands above it.
step_layers() {
  ! grep -rnE 'stateroom[-_]wasmi[-_](link|server|capi|service|testkit|store|cluster)|crates/' src
  ! cargo tree -e normal,build --all-features --prefix none | grep -E '^stateroom-wasmi-(link|server)'
}

step_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --all-features
  RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps
}

# clippy refuses what is newer than the version that Cargo.toml states; here, what the
# dependencies ask for.
step_msrv() {
  cargo metadata --format-version 1 --all-features --locked | python3 -c '
import json, sys
version = lambda text: tuple(int(part) for part in (text or "0").split("."))[:2]
metadata = json.load(sys.stdin)
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
ours = metadata["workspace_members"]
seen, todo = set(), list(ours)
while todo:
    node = todo.pop()
    if node in seen:
        continue
    seen.add(node)
    for dep in nodes[node]["deps"]:
        if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]):
            todo.append(dep["pkg"])
packages = {package["id"]: package for package in metadata["packages"]}
stated = version(packages[ours[0]]["rust_version"])
newer = [packages[p]["name"] for p in seen if version(packages[p]["rust_version"]) > stated]
print("Rust", packages[ours[0]]["rust_version"], "is stated;", len(seen) - len(ours), "dependencies ask for no newer one" if not newer else "too new: " + ", ".join(newer))
sys.exit(bool(newer))
'
}

step_bare_metal() {
  local target tree features=stateroom-wasmi-host/log,stateroom-wasmi-host/embedded-hal,stateroom-wasmi-link/embedded-io
  for target in thumbv7em-none-eabihf riscv32imac-unknown-none-elf; do
    cargo_for "$target" build --release -p stateroom-wasmi-host -p stateroom-wasmi-link --features "$features"
    tree=$(cargo tree -e normal --target "$target" -p stateroom-wasmi-host -p stateroom-wasmi-link --features "$features" --prefix none | sort -u)
    if grep -E '^(tokio|axum|clap|serde|std-|futures|getrandom) ' <<<"$tree"; then
      echo "the crates above have no place on $target"
      exit 1
    fi
    echo "$target: $(wc -l <<<"$tree") crates"
  done
  # As a library for phones, and for another family of microcontrollers.
  for target in aarch64-apple-ios aarch64-linux-android thumbv8m.main-none-eabihf; do
    cargo_for "$target" build --lib
  done
}

step_package() {
  cargo package --list --allow-dirty >"$cache/package.list"
  if grep -E '^(benches/vs-jit|crates|fuzz|\.ci)/' "$cache/package.list"; then
    echo "the files above are not for the registry"
    exit 1
  fi
}

# The rooms are built again, and do what the committed ones do.
step_rooms() {
  local build=(examples/rooms/build.sh --out "$cache/rooms")
  if has_target wasm32-wasip1 && has_target wasm32-unknown-unknown; then
    CARGO_TARGET_DIR=$cache/rooms-target "${build[@]}"
  else
    local home
    home=$("$(dirname "$cross")/toolchain.sh")
    CARGO=$cross RUSTC=$home/bin/rustc CARGO_TARGET_DIR=$cache/rooms-target "${build[@]}"
  fi
  rm -rf examples/rooms/assemblyscript/node_modules
  diff <(cd "$cache/rooms" && ls) <(cd examples/rooms/wasm && ls)
  ROOMS_DIR=$cache/rooms cargo test -p stateroom-wasmi --test it -- bundled
}

step_browser() {
  cargo build -p stateroom-wasmi
  (cd crates/cli/tests/browser && npm install --no-audit --no-fund --loglevel=error &&
    STATEROOM_WASMI=$CARGO_TARGET_DIR/debug/stateroom-wasmi npm test)
  rm -rf crates/cli/tests/browser/node_modules
}

# The same answers as the JIT host gives.
step_jit() {
  # Its own profile without link-time optimisation, which for two versions of wasmtime takes long.
  (cd benches/vs-jit && CARGO_TARGET_DIR=$cache/jit cargo test --profile fast --locked)
}

# Each target for a short time, from nothing but its first inputs, and always with the same seed: a
# change is to fail here for what it does, and not by chance. Longer runs draw a seed of their own.
step_fuzz() {
  local target
  rm -rf "$cache/corpus"
  for target in module smith events codec check socket; do
    CARGO_TARGET_DIR=$cache/fuzz FUZZ_CORPUS=$cache/corpus \
      fuzz/run.sh "$target" -seed=1 -max_total_time=20 -verbosity=0 -print_final_stats=1
  done
}

# The firmwares, booted in QEMU: self-tests, the same bytes as here, budgets, and a talk over the UART.
step_firmware() {
  local board target programs tool replay=$cache/replay.txt
  install_qemu
  cargo build -p stateroom-wasmi
  tool=$CARGO_TARGET_DIR/debug/stateroom-wasmi
  (cd examples/firmware && cargo fmt --all -- --check && cargo clippy -q -p app --all-targets -- -D warnings &&
    cargo run -q --release -p app --example replay >"$replay")
  for board in stm32f405:thumbv7em-none-eabihf mps2-an505:thumbv8m.main-none-eabihf \
    riscv-virt:riscv32imac-unknown-none-elf; do
    target=${board#*:} board=${board%%:*}
    programs=$(dir_for "$target")/$target/release
    cargo_for "$target" build --release --locked -p "$board" --manifest-path examples/firmware/Cargo.toml
    examples/firmware/check.py "$board" --programs "$programs" --replay "$replay"
    .ci/firmware/talk "$board" "$programs/$board" "$tool"
  done
  # The same without the validator.
  board=stm32f405 target=thumbv7em-none-eabihf
  programs=$(dir_for "$target")/$target/release
  cargo_for "$target" build --release --locked -p "$board" --no-default-features --features unchecked \
    --manifest-path examples/firmware/Cargo.toml
  examples/firmware/check.py "$board" --build unchecked --programs "$programs" --replay "$replay"
  .ci/firmware/talk "$board" "$programs/$board" "$tool"
}

install_qemu() {
  if command -v qemu-system-arm >/dev/null && command -v qemu-system-riscv32 >/dev/null; then return; fi
  if [ -x "$root/../shared/cross/qemu.sh" ]; then
    PATH=$("$root/../shared/cross/qemu.sh"):$PATH
  else
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq qemu-system-arm qemu-system-misc binutils >/dev/null
  fi
}
