//! Any bytes as a module; the corpus begins with the bundled rooms.
#![no_main]

libfuzzer_sys::fuzz_target!(|wasm: &[u8]| stateroom_wasmi_fuzz::play(wasm));
