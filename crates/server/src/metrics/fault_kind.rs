//! Kinds of faults, as the values of a label.

use stateroom_wasmi_host::{FaultCause, Trap};

/// What a guest did wrong, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FaultKind(&'static str);

impl FaultKind {
    pub(crate) const fn of(cause: &FaultCause) -> Self {
        Self(match cause {
            // A panic of the guest, mostly.
            FaultCause::Trap(Trap::Unreachable) => "unreachable",
            FaultCause::Trap(_) => "trap",
            FaultCause::OutOfFuel { .. } => "out_of_fuel",
            FaultCause::BadPointer { .. } => "bad_pointer",
            FaultCause::NotUtf8 => "not_utf8",
            FaultCause::Undecodable(_) => "undecodable",
            FaultCause::MessageTooLong { .. } => "message_too_long",
            FaultCause::TooManyMessages { .. } => "too_many_messages",
            FaultCause::TooManyBytes { .. } => "too_many_bytes",
            FaultCause::BadAllocation { .. } => "bad_allocation",
            FaultCause::Exit { .. } => "exit",
            FaultCause::WrongVersion { .. } => "wrong_version",
            _ => "other",
        })
    }

    pub(super) const fn name(self) -> &'static str {
        self.0
    }
}
