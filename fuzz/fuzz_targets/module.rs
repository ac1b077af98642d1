//! Arbitrary bytes as a module; the seed corpus is the bundled rooms.
#![no_main]

libfuzzer_sys::fuzz_target!(|wasm: &[u8]| stateroom_wasmi_fuzz::check_module(wasm));
