//! Stands in for `instrument` without the feature `rollback`: no module is instrumented, and none
//! of these types has a size.

use super::host_state::HostState;
use crate::{error::LoadError, load_options::LoadOptions};
use alloc::borrow::Cow;
use wasmi::{Instance, Store};

pub(super) struct AddedExports;

pub(super) struct Globals;

#[allow(clippy::unnecessary_wraps, reason = "the signature of its twin")]
pub(super) const fn instrument(
    wasm: &[u8],
    _: LoadOptions,
) -> Result<(Cow<'_, [u8]>, AddedExports), LoadError> {
    Ok((Cow::Borrowed(wasm), AddedExports))
}

impl AddedExports {
    pub(super) const fn find(&self, _: Instance, _: &Store<HostState>) -> Globals {
        Globals
    }
}
