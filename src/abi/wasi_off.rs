//! In place of `wasi.rs` without the feature `wasi`: nothing of WASI can be imported.

use super::Signature;

/// There is no version to import.
#[derive(Clone, Copy)]
pub(crate) enum WasiVersion {}

impl WasiVersion {
    pub(crate) const fn imported_as(_: &str) -> Option<Self> {
        None
    }

    pub(crate) const fn function(self, _: &str) -> Option<Signature> {
        match self {}
    }
}

/// The module names of `wasi.rs`.
pub(super) const LEFT_OUT: &[&str] = &["wasi_unstable", "wasi_snapshot_preview1"];
