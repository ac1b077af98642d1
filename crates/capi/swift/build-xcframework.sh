#!/bin/sh
# Builds CStateroom.xcframework beside this file: the static library for iOS, for its simulator and
# for macOS, with the header and the module map. Needs a Mac with Xcode and
#
#   rustup target add aarch64-apple-ios aarch64-apple-ios-sim x86_64-apple-ios \
#     aarch64-apple-darwin x86_64-apple-darwin
set -eu
cd "$(dirname "$0")"
export IPHONEOS_DEPLOYMENT_TARGET=13.0 MACOSX_DEPLOYMENT_TARGET=11.0
target=${CARGO_TARGET_DIR:-$PWD/../../../target}
work=$target/xcframework
rm -rf "$work" CStateroom.xcframework
mkdir -p "$work/headers" "$work/simulator" "$work/macos"
cp ../include/stateroom.h module.modulemap "$work/headers"

for triple in aarch64-apple-ios aarch64-apple-ios-sim x86_64-apple-ios aarch64-apple-darwin \
  x86_64-apple-darwin; do
  cargo rustc --manifest-path ../Cargo.toml --target-dir "$target" --profile capi \
    --crate-type staticlib --target "$triple"
done
library() { echo "$target/$1/capi/libstateroom_wasmi.a"; }

# One library for both kinds of Mac, which run the simulator, too.
lipo -create "$(library aarch64-apple-ios-sim)" "$(library x86_64-apple-ios)" \
  -output "$work/simulator/libstateroom_wasmi.a"
lipo -create "$(library aarch64-apple-darwin)" "$(library x86_64-apple-darwin)" \
  -output "$work/macos/libstateroom_wasmi.a"
xcodebuild -create-xcframework \
  -library "$(library aarch64-apple-ios)" -headers "$work/headers" \
  -library "$work/simulator/libstateroom_wasmi.a" -headers "$work/headers" \
  -library "$work/macos/libstateroom_wasmi.a" -headers "$work/headers" \
  -output CStateroom.xcframework
