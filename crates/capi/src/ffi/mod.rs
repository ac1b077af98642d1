//! Between C and the safe code: pointers, handles, and who uses them.

mod caller;
mod exclusive;
mod handle;

#[cfg(not(feature = "std"))]
pub(crate) use self::caller::write_with_nul;
pub(crate) use self::{
    caller::{Caller, Versioned},
    exclusive::Exclusive,
    handle::{Handle, HandleType},
};
