#!/bin/sh
# Builds the library and installs it with its headers, a CMake package and a pkg-config file:
#
#   crates/capi/install.sh PREFIX [ARGUMENT OF CARGO ...]
#
# such as `crates/capi/install.sh /usr/local` or, with fewer features,
# `crates/capi/install.sh "$HOME/stateroom" --no-default-features --features std,wasi`.
# What is installed may be moved. Linux; elsewhere, copy the headers and what cargo has built.
set -eu
[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
[ "$(uname -s)" = Linux ] || { echo "install.sh: only Linux has this way to install" >&2; exit 2; }
prefix=$1
shift

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
interface=$(sed -n 's/^#define STATEROOM_INTERFACE_VERSION //p' "$here/include/stateroom.h")
version=$(cargo pkgid --manifest-path "$here/Cargo.toml" | sed 's/.*[#@]//')
soname=libstateroom_wasmi.so.$interface

cargo rustc --manifest-path "$here/Cargo.toml" --target-dir "$target" --profile capi \
  --crate-type staticlib,cdylib "$@" -- -C link-arg=-Wl,-soname,"$soname"

# put SOURCE FOLDER [NAME]: installs a text file with its variables replaced.
put() {
  sed -e "s/@VERSION@/$version/g" -e "s/@SONAME@/$soname/g" "$here/$1" >"$prefix/$2/${3:-${1##*/}}"
}

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig" "$prefix/lib/cmake/stateroom_wasmi"
put include/stateroom.h include
put include/stateroom.hpp include
put packaging/stateroom_wasmi.pc lib/pkgconfig
put packaging/config.cmake lib/cmake/stateroom_wasmi stateroom_wasmi-config.cmake
put packaging/config-version.cmake lib/cmake/stateroom_wasmi stateroom_wasmi-config-version.cmake
install -m 644 "$target/capi/libstateroom_wasmi.a" "$prefix/lib"
install -m 755 "$target/capi/libstateroom_wasmi.so" "$prefix/lib/$soname"
ln -sf "$soname" "$prefix/lib/libstateroom_wasmi.so"
