//! Tests of the kit, and of the bundled rooms by it.

mod bundled;
mod room;
mod scripts;
#[path = "../../../../tests/support/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of the other crates"
)]
mod support;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// The root of the repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder of the bundled modules; `ROOMS_DIR` overrides it.
fn rooms() -> PathBuf {
    let committed = || repository().join("examples/rooms/wasm");
    std::env::var_os("ROOMS_DIR").map_or_else(committed, PathBuf::from)
}

/// A bundled module.
fn bundled_module(name: &str) -> Vec<u8> {
    let path = rooms().join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The message of a panic.
fn panic_of<T>(f: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).err().expect("no panic");
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_owned(),
    }
}
