//! Instruments the bundled modules, so that a board rewrites and copies nothing of them. They are
//! validated here, too.

use stateroom_wasmi_host::{Limits, LoadOptions, Module};
use std::{env, fs, path::PathBuf};

const ROOMS: &str = "../../rooms/wasm";
/// Longer modules are too much for any of the boards.
const MAX_BYTES: usize = 128 << 10;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Rooms that are saved need access to their state, which takes some memory.
    let is_saved = env::var_os("CARGO_FEATURE_SNAPSHOT").is_some();
    let options = LoadOptions::new().snapshots(is_saved);
    println!("cargo::rerun-if-changed={ROOMS}");
    for file in fs::read_dir(ROOMS).expect("the folder of rooms exists") {
        let path = file.expect("it can be read").path();
        let wasm = fs::read(&path).expect("it can be read");
        if wasm.len() > MAX_BYTES {
            continue;
        }
        let instrumented = Module::instrument(&wasm, &Limits::new(), options)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().expect("it is a file");
        fs::write(out.join(name), instrumented).expect("OUT_DIR is writable");
    }
}
