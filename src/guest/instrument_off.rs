//! Stands in for `instrument` without the feature `snapshot`: no module is instrumented, and none
//! of these types has a size.

use super::{compiled::Compiled, host_state::HostState, instrumented::Preamble};
use crate::{error::LoadError, limits::Limits, load_options::LoadOptions};
use alloc::borrow::Cow;
use wasmi::{Instance, Store};

pub(crate) struct Instrumentation;

pub(super) struct Access;

#[allow(clippy::unnecessary_wraps, reason = "the signature of its twin")]
pub(super) fn instrument<'a>(
    wasm: Cow<'a, [u8]>,
    _: &[u8],
    _: LoadOptions,
) -> Result<(Cow<'a, [u8]>, Instrumentation), LoadError> {
    Ok((wasm, Instrumentation))
}

#[allow(clippy::unnecessary_wraps, reason = "the signature of its twin")]
pub(super) const fn of_preamble(
    _: &Preamble,
    _: &Limits,
    _: LoadOptions,
) -> Result<Instrumentation, LoadError> {
    Ok(Instrumentation)
}

impl Instrumentation {
    pub(super) const fn access(&self, _: Instance, _: &Store<HostState>, _: u64) -> Access {
        Access
    }
}

impl Compiled {
    #[allow(clippy::unnecessary_wraps, reason = "the signature of its twin")]
    #[allow(clippy::needless_pass_by_ref_mut, reason = "the signature of its twin")]
    pub(super) const fn keep_baseline(&mut self) -> Result<(), LoadError> {
        Ok(())
    }
}
