# The steps of .ci/run; each is a function that fails if something is wrong.

# What the others need and the machine lacks.
step_tools() {
  .ci/install
  rustc --version
}

# What to run before each commit; a part of the steps below.
step_quick() {
  step_format
  cargo clippy -q --workspace --all-targets -- -D warnings
  cargo test -p stateroom-wasmi-host
  RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps
}

# The README's command; then the core alone, by its own features.
step_tests() {
  cargo test --workspace
  cargo test -p stateroom-wasmi-link --features bridge,embedded-io
  cargo test -p stateroom-wasmi-link --features bridge,embedded-io,snapshot
  cargo test -p stateroom-wasmi-service --features v0_2
  cargo test --lib --test it --test alloc
  cargo test --features embedded-hal,snapshot,unchecked --test it
  cargo test --no-default-features --features validate --lib --test it --test alloc
  # Optimised, since the interpreter then dispatches by tail calls.
  cargo test --release --features simd --test it
  # Cargo's own release profile: without link-time optimisation, many codegen units.
  cargo test --profile plain-release --features simd --test it -- long_loops_use_no_host_stack stack::
}

step_format() {
  cargo fmt --all -- --check
  if [ -f benches/vs-jit/Cargo.toml ]; then cargo fmt --manifest-path benches/vs-jit/Cargo.toml -- --check; fi
  cargo fmt --manifest-path fuzz/Cargo.toml -- --check
}

step_lint() {
  local features
  for features in "" log std simd wat trim snapshot unchecked embedded-hal tokio; do
    cargo clippy -q --all-targets --features "$features" -- -D warnings
  done
  cargo clippy -q --lib --no-default-features --features unchecked -- -D warnings
  # Without WASI; its twins also depend on the features `log` and `snapshot`.
  for features in validate validate,log validate,snapshot; do
    cargo clippy -q --all-targets --no-default-features --features "$features" -- -D warnings
  done
  for features in "" bridge embedded-io log snapshot; do
    cargo clippy -q -p stateroom-wasmi-link --all-targets --features "$features" -- -D warnings
  done
  for features in "" board jwt tls; do
    cargo clippy -q -p stateroom-wasmi-server --all-targets --features "$features" -- -D warnings
  done
  for features in v0_2 v0_4; do
    cargo clippy -q -p stateroom-wasmi-service --no-default-features --features "$features" -- -D warnings
  done
  for features in "" serve; do
    cargo clippy -q -p stateroom-wasmi --no-default-features --features "$features" -- -D warnings
  done
  for features in "" log std,trim; do
    cargo clippy -q -p stateroom-wasmi-capi --lib --no-default-features --features "$features" -- -D warnings
  done
  cargo clippy -q --workspace --all-targets --all-features -- -D warnings
}

# The core names no crate that stands above it, and service and testkit only the core.
step_layers() {
  local crate tree
  if grep -rnE 'stateroom[-_]wasmi[-_](link|resume|server|capi|service|testkit|store|cluster)|crates/' src; then
    echo "src/ names a crate that stands above it"
    return 1
  fi
  tree=$(cargo tree -e normal,build --all-features --prefix none)
  if grep -E '^stateroom-wasmi-(link|resume|server|store|testkit)' <<<"$tree"; then
    echo "the core depends on a crate that stands above it"
    return 1
  fi
  for crate in service testkit; do
    tree=$(cargo tree -e normal,build -p "stateroom-wasmi-$crate" --all-features --prefix none)
    if grep -E '^stateroom-wasmi-(link|server) |^stateroom-wasmi ' <<<"$tree"; then
      echo "the $crate depends on more than the core"
      return 1
    fi
  done
}

step_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps --all-features
  RUSTDOCFLAGS="-D warnings" cargo doc -q --workspace --no-deps
}

# That no dependency needs a newer Rust than Cargo.toml states; clippy checks our own code for that.
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
      echo "the crates above do not belong on $target"
      return 1
    fi
    echo "$target: $(wc -l <<<"$tree") crates"
    # Without WASI.
    cargo_for "$target" build --release --lib --no-default-features --features validate
  done
  # As a library for phones, and for another family of microcontrollers.
  for target in aarch64-apple-ios aarch64-linux-android thumbv8m.main-none-eabihf; do
    cargo_for "$target" build --lib
  done
}

step_package() {
  cargo package --list --allow-dirty >"$cache/package.list"
  if grep -E '^(benches/vs-jit|crates|fuzz|\.ci)/|/node_modules/|/echo-go\.wasm$' "$cache/package.list"; then
    echo "the files above must not be published"
    return 1
  fi
  # Cargo leaves folders with a Cargo.toml out.
  diff <(cd crates/cli && find templates -type f | LC_ALL=C sort) \
    <(cargo package --list --allow-dirty -p stateroom-wasmi | grep "^templates/" | LC_ALL=C sort)
}

# That no guest gets much more of the host's time or stack than it pays for, in counted instructions.
step_audit() {
  need valgrind
  cargo bench -q --bench cost_audit --features log,simd,snapshot -- --check
}

# Rooms that are built again behave as the committed ones do, and what the page for authors says works.
step_rooms() {
  build_rooms "$cache/rooms"
  diff <(cd "$cache/rooms" && ls) <(cd examples/rooms/wasm && ls)
  ROOMS_DIR=$cache/rooms cargo test -p stateroom-wasmi --test it -- bundled
  ROOMS_DIR=$cache/rooms cargo test -p stateroom-wasmi-testkit --test it -- bundled
  cargo build -p stateroom-wasmi
  run_docs docs/rooms.md
}

# Runs the commands of a page for authors of rooms: run_docs PAGE.
run_docs() {
  need make
  local path=$PATH
  if ! has_target wasm32-wasip1; then
    [ -n "$cross_dir" ] || { echo "the wasm32 targets are missing: run .ci/install rooms"; return 1; }
    # A cargo that builds as those do who have rustup's target.
    mkdir -p "$cache/cargo-for-docs"
    printf '#!/bin/sh\nPATH="%s" exec "%s/cargo" "$@" --target wasm32-wasip1\n' "$PATH" "$cross_dir" \
      >"$cache/cargo-for-docs/cargo"
    chmod +x "$cache/cargo-for-docs/cargo"
    path=$cache/cargo-for-docs:$PATH
  fi
  PATH=$path .ci/run-docs "$1" "$CARGO_TARGET_DIR/debug/stateroom-wasmi" "$cache/docs"
}

# Builds the committed modules again, and writes their lengths into the README.
step_rebuild_rooms() {
  build_rooms examples/rooms/wasm
  python3 -c '
import os, re
def measured(row):
    cells = row[0].split("|")
    cells[5] = " %d " % os.path.getsize("examples/rooms/wasm/" + row[1] + ".wasm")
    return "|".join(cells)
text = open("examples/rooms/README.md").read()
text = re.sub(r"^\| `([\w.-]+)` \|.*$", measured, text, flags=re.M)
open("examples/rooms/README.md", "w").write(text)
'
}

# build_rooms FOLDER: all of them, into a folder.
build_rooms() {
  need clang wasm-ld go zig wat2wasm node npm python3
  local build=(examples/rooms/build.sh --out "$1")
  if has_target wasm32-wasip1 && has_target wasm32-unknown-unknown; then
    CARGO_TARGET_DIR=$cache/rooms-target "${build[@]}"
  else
    local home
    [ -n "$cross_dir" ] || { echo "the wasm32 targets are missing: run .ci/install rooms"; return 1; }
    home=$("$cross_dir/toolchain.sh")
    CARGO=$cross_dir/cargo RUSTC=$home/bin/rustc CARGO_TARGET_DIR=$cache/rooms-target "${build[@]}"
  fi
  rm -rf examples/rooms/{assemblyscript,wasm-opt}/node_modules
}

step_browser() {
  local tests=crates/cli/tests/browser
  need chromium node npm
  [ -d $tests/node_modules ] || { echo "$tests/node_modules is missing: run .ci/install"; return 1; }
  cargo build -p stateroom-wasmi
  local path=$PATH
  if ! has_target wasm32-wasip1 || ! has_target wasm32-unknown-unknown; then
    [ -n "$cross_dir" ] || { echo "the wasm32 targets are missing: run .ci/install"; return 1; }
    mkdir -p "$cache/cargo-for-browser"
    printf '#!/bin/sh\nPATH="%s"\ncase " $* " in *" --target "*) exec "%s/cargo" "$@" ;; esac\nexec cargo "$@"\n' \
      "$PATH" "$cross_dir" >"$cache/cargo-for-browser/cargo"
    chmod +x "$cache/cargo-for-browser/cargo"
    path=$cache/cargo-for-browser:$PATH
  fi
  (cd $tests && PATH=$path GAME_TARGET=$cache/game STATEROOM_WASMI=$CARGO_TARGET_DIR/debug/stateroom-wasmi npm test)
  node --test crates/resume/js/test.js
}

# The WebSocket protocol, by the cases of the Autobahn test suite.
# The files of examples/deploy, with the real proxies and Prometheus.
step_operating() {
  need nginx caddy haproxy prometheus openssl systemd-analyze
  cargo build -p stateroom-wasmi
  "$cache/venv/bin/python" .ci/operating "$CARGO_TARGET_DIR/debug/stateroom-wasmi"
}

# What is skipped where there is no NATS.
step_cluster() {
  [ -x "$cache/venv/bin/nats-server" ] || { echo "nats-server is missing: run .ci/install cluster"; return 1; }
  export NATS_SERVER=$cache/venv/bin/nats-server
  cargo test -p stateroom-wasmi-cluster
  cargo test -p stateroom-wasmi --test cluster --no-run
  # All faults once, and some twice: about 100 seconds.
  FAULTS=10 timeout 400 cargo test -p stateroom-wasmi --test cluster -- --nocapture
}

step_autobahn() {
  local python=$cache/venv/bin/python
  "$python" -c 'import kosoku' 2>/dev/null || { echo "kosoku is missing: run .ci/install autobahn"; return 1; }
  cargo build -p stateroom-wasmi
  timeout 600 "$python" .ci/autobahn "$CARGO_TARGET_DIR/debug/stateroom-wasmi"
}

# The same outputs as the JIT host's.
step_jit() {
  # A profile without link-time optimisation, which takes long for two versions of wasmtime.
  (cd benches/vs-jit && CARGO_TARGET_DIR=$cache/jit cargo test --profile fast --locked)
}

# Each target for a short time, from its seed inputs alone and with a fixed seed, so that a change
# fails here for what it does, not by chance. Longer runs draw their own seed.
step_fuzz() {
  local target
  rm -rf "$cache/corpus"
  for target in module smith events codec check snapshot socket; do
    CARGO_TARGET_DIR=$cache/fuzz FUZZ_CORPUS=$cache/corpus \
      fuzz/run.sh "$target" -seed=1 -max_total_time=20 -verbosity=0 -print_final_stats=1
  done
}

# The firmwares, booted in QEMU: self-tests, the same bytes as here, budgets, and messages over the UART.
step_firmware() {
  local board target programs tool recordings=() replay=$cache/replay.txt
  need qemu-system-arm qemu-system-riscv32 size nm node python3
  cargo build -p stateroom-wasmi
  tool=$CARGO_TARGET_DIR/debug/stateroom-wasmi
  (cd examples/firmware && cargo fmt --all -- --check && cargo clippy -q -p app --all-targets -- -D warnings &&
    cargo build -q --release -p app --examples)
  "$CARGO_TARGET_DIR/release/examples/replay" >"$replay"
  for board in stm32f405:thumbv7em-none-eabihf mps2-an505:thumbv8m.main-none-eabihf \
    riscv-virt:riscv32imac-unknown-none-elf; do
    target=${board#*:} board=${board%%:*}
    programs=$(dir_for "$target")/$target/release
    cargo_for "$target" build --release --locked -p "$board" --manifest-path examples/firmware/Cargo.toml
    examples/firmware/check.py "$board" --programs "$programs" --replay "$replay"
    .ci/firmware/talk "$board" "$programs/$board" "$tool"
    recordings+=("$programs/$board-recordings")
  done
  .ci/firmware/move "$tool" "${recordings[1]%-recordings}" "${recordings[2]%-recordings}"
  # A small board has none: those of the others, which come after it.
  .ci/firmware/recordings "$tool" "$CARGO_TARGET_DIR/release/examples/recordings" "${recordings[@]:1}"
  # The same without the validator.
  board=stm32f405 target=thumbv7em-none-eabihf
  programs=$(dir_for "$target")/$target/release
  cargo_for "$target" build --release --locked -p "$board" --no-default-features --features unchecked \
    --manifest-path examples/firmware/Cargo.toml
  examples/firmware/check.py "$board" --build unchecked --programs "$programs" --replay "$replay"
  .ci/firmware/talk "$board" "$programs/$board" "$tool"
}

# The C interface: a program in C11 and C++17 with both libraries, the README's program, one without the
# standard library, all under valgrind; and the libraries for other targets.
step_capi() {
  local target program lib=$CARGO_TARGET_DIR/capi out=$cache/capi room=examples/rooms/wasm/echo-c.wasm
  local c=(cc -std=c11) cpp=(c++ -std=c++17 -x c++) smoke=(crates/capi/tests/c/smoke.c -x none)
  local flags=(-O1 -Wall -Wextra -pedantic -Werror -Icrates/capi/include) libs=(-lpthread -ldl -lm -lgcc_s)
  local build=(-p stateroom-wasmi-capi --profile capi --crate-type)
  local build_no_std=(-p stateroom-wasmi-capi --profile capi-no-std --crate-type staticlib
    --no-default-features --features wasi)
  need cc c++ valgrind
  mkdir -p "$out"
  cargo test -p stateroom-wasmi-capi
  # The interpreter, as this profile optimises it.
  cargo test --profile capi --features simd --test it -- long_loops_use_no_host_stack stack::

  cargo rustc "${build[@]}" staticlib,cdylib
  "${c[@]}" "${flags[@]}" "${smoke[@]}" "$lib/libstateroom_wasmi.a" "${libs[@]}" -o "$out/c"
  "${cpp[@]}" "${flags[@]}" "${smoke[@]}" "$lib/libstateroom_wasmi.a" "${libs[@]}" -o "$out/cpp"
  "${c[@]}" "${flags[@]}" "${smoke[@]}" -L"$lib" -lstateroom_wasmi -Wl,-rpath,"$lib" -o "$out/c-dynamic"
  awk '/^```c$/ { code = 1; next } /^```$/ { code = 0 } code' crates/capi/README.md >"$out/readme.c"
  "${c[@]}" "${flags[@]}" "$out/readme.c" "$lib/libstateroom_wasmi.a" "${libs[@]}" -o "$out/readme"

  # Without the standard library, on this machine.
  cargo rustc "${build_no_std[@]}"
  "${c[@]}" "${flags[@]}" -DWITHOUT_STD "${smoke[@]}" "$lib-no-std/libstateroom_wasmi.a" -o "$out/no-std"

  for program in c cpp c-dynamic readme no-std; do
    valgrind -q --error-exitcode=1 --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
      "$out/$program" $room
  done

  for target in aarch64-apple-ios aarch64-apple-ios-sim x86_64-pc-windows-gnu; do
    cargo_with_std_for "$target" rustc "${build[@]}" staticlib
  done
  cargo_for thumbv7em-none-eabihf rustc "${build_no_std[@]}"
}

# Programs that embed the C interface: built and run by the commands of their READMEs against what
# install.sh has installed; under valgrind, but for C#, since valgrind reports errors in Mono itself.
step_embedding() {
  local folder=$cache/embedding example
  need cc c++ clang++ cmake pkg-config mcs mono valgrind
  rm -rf "$folder"
  mkdir -p "$folder/rooms"
  crates/capi/install.sh "$folder/installed"
  # What is installed may be moved.
  mv "$folder/installed" "$folder/prefix"
  export PREFIX=$folder/prefix
  cp -r examples/{c,cpp-tick,csharp} "$folder"
  cp -r examples/rooms/wasm "$folder/rooms"

  for example in c csharp; do
    (cd "$folder/$example" && bash -euo pipefail -c "$(block sh)" | diff <(block text) -)
  done
  (cd "$folder/cpp-tick" && bash -euo pipefail -c "$(block sh)")
  memcheck "$folder/c/room" "$folder/rooms/wasm/counter-c.wasm"
  memcheck "$folder/cpp-tick/build/tick_server" "$folder/rooms/wasm" 5 --benchmark
  test_cpp_wrapper "$folder"
  test_c_firmware "$folder"
  # The Swift package can only be read here.
  sh -n crates/capi/swift/build-xcframework.sh
  cp crates/capi/swift/module.modulemap "$PREFIX/include"
  echo '@import CStateroom; stateroom_room room;' |
    clang -x objective-c -fmodules -fmodules-cache-path="$folder/modules" -I "$PREFIX/include" -fsyntax-only -
}

# The code of a language in a Markdown file: block LANGUAGE [FILE].
block() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{/^\`\`\`/!p}" "${2-README.md}"; }

# Runs a program under valgrind: no error, and nothing that is not freed.
memcheck() {
  valgrind -q --error-exitcode=1 --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all \
    "$@" >"$cache/memcheck.txt"
}

# stateroom.hpp in the dialects of C++ that it is for, also without exceptions; linked statically.
test_cpp_wrapper() {
  local compiler dialect program=$1/wrapper warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
  for compiler in g++ clang++; do
    for dialect in c++17 c++20; do
      "$compiler" -std=$dialect -fno-exceptions -fno-rtti "${warnings[@]}" -I "$PREFIX/include" -fsyntax-only \
        crates/capi/tests/wrapper.cpp
      block cpp docs/embedding-c.md |
        "$compiler" -std=$dialect -Wall -Wextra -Werror -Wno-unused-parameter -I "$PREFIX/include" -fsyntax-only -x c++ -
    done
  done
  c++ -std=c++17 crates/capi/tests/wrapper.cpp -I "$PREFIX/include" "$PREFIX/lib/libstateroom_wasmi.a" \
    -lpthread -ldl -lm -o "$program"
  memcheck "$program" examples/rooms/wasm
}

# The firmware in C prints what it prints on the desktop, and ends by its own means when its heap is
# too small.
test_c_firmware() {
  local library target=thumbv8m.main-none-eabihf qemu
  need clang ld.lld qemu-system-arm
  qemu=(timeout 120 qemu-system-arm -M mps2-an505 -nographic -monitor none -serial none
    -semihosting-config "enable=on,target=native")
  cargo_for $target rustc -p stateroom-wasmi-capi --profile capi-no-std --config 'profile.capi-no-std.opt-level="z"' \
    --no-default-features --crate-type staticlib
  library=$(dir_for $target)/$target/capi-no-std/libstateroom_wasmi.a
  (cd examples/c-firmware && cc -std=c11 -Wall -Wextra -Werror desktop.c play.c modules.S -I "$PREFIX/include" \
    "$PREFIX/lib/libstateroom_wasmi.a" -lpthread -ldl -lm -o "$1/desktop")
  memcheck "$1/desktop"
  examples/c-firmware/build.sh "$library" "$1/firmware.elf" -Werror
  size "$1/firmware.elf"
  "${qemu[@]}" -kernel "$1/firmware.elf" </dev/null >"$1/board.txt" 2>&1
  grep '^heap: ' "$1/board.txt"
  diff "$cache/memcheck.txt" <(grep -v '^heap: ' "$1/board.txt")

  examples/c-firmware/build.sh "$library" "$1/firmware.elf" -Wl,--defsym=HEAP_BYTES=12K
  if "${qemu[@]}" -kernel "$1/firmware.elf" </dev/null >"$1/board.txt" 2>&1; then
    echo "12 KB of heap cannot be enough"
    return 1
  fi
  grep 'memory allocation of .* failed' "$1/board.txt"
}
