//! Faults of guests, and what follows them.

use crate::failure::{Failure, unknown_value};
use crate::number::any_stateroom_on_fault;
use core::time::Duration;
use stateroom_wasmi_host::{Backoff, Fault, FaultCause, FaultPolicy};

/// What a guest did wrong, as a number; its text says more. Later versions may have others.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_fault {
    /// Nothing.
    None = 0,
    /// An instruction trapped: a panic, an access out of bounds, a stack overflow.
    Trap = 1,
    /// One event used more than `max_fuel_per_event`.
    OutOfFuel = 2,
    /// It passed a pointer and a length that are not within its memory.
    BadPointer = 3,
    /// It sent a text that is not UTF-8.
    NotUtf8 = 4,
    /// It sent bytes that do not decode (ABI 0.4).
    Undecodable = 5,
    /// It sent a message longer than `max_message_bytes`.
    MessageTooLong = 6,
    /// It sent more than `max_outbox_messages` within one event.
    TooManyMessages = 7,
    /// It sent more than `max_outbox_bytes` within one event.
    TooManyBytes = 8,
    /// Its allocator returned a buffer that is not within its memory.
    BadAllocation = 9,
    /// A function that was called for the first time is not valid
    /// (STATEROOM_COMPILATION_ON_DEMAND).
    InvalidFunction = 10,
    /// It called `proc_exit`.
    Exit = 11,
    /// It was made for another version of the ABI.
    WrongVersion = 12,
    /// Something that this interface has no number for.
    Other = 13,
}

/// What follows when a guest fails.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_on_fault {
    /// For a host: the room closes. For a room: as its host.
    Default = 0,
    /// The room closes. What it had sent is still delivered.
    Close = 1,
    /// The room continues with a fresh guest, after a wait.
    Restart = 2,
    /// The room goes on with whatever state its guest is left in.
    Continue = 3,
    /// The event is undone. The module must have been loaded with `snapshots`.
    Rollback = 4,
}

/// What follows when a guest fails, and how soon. All 0 is the default.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct stateroom_fault_policy {
    /// What follows. The rest is for RESTART.
    pub on_fault: any_stateroom_on_fault,
    /// How many faults in a row are followed by a restart; one more closes the room. 0: 8.
    pub max_restarts: u32,
    /// The wait after the first fault in nanoseconds; each further one doubles it. 0: 100 ms.
    pub first_wait: u64,
    /// The longest wait in nanoseconds. 0: 30 s.
    pub longest_wait: u64,
}

impl stateroom_fault_policy {
    /// None if it is the default.
    pub(crate) fn policy(&self) -> Result<Option<FaultPolicy>, Failure> {
        Ok(Some(match self.on_fault {
            v if v == stateroom_on_fault::Default as i32 => return Ok(None),
            v if v == stateroom_on_fault::Close as i32 => FaultPolicy::Close,
            v if v == stateroom_on_fault::Restart as i32 => FaultPolicy::Restart(self.backoff()),
            v if v == stateroom_on_fault::Continue as i32 => FaultPolicy::Continue,
            #[cfg(feature = "snapshot")]
            v if v == stateroom_on_fault::Rollback as i32 => FaultPolicy::Rollback,
            #[cfg(not(feature = "snapshot"))]
            v if v == stateroom_on_fault::Rollback as i32 => {
                return Err(Failure::Unsupported("snapshots"));
            }
            v => return Err(unknown_value("on_fault", v)),
        }))
    }

    fn backoff(&self) -> Backoff {
        let mut backoff = Backoff::new();
        if self.max_restarts != 0 {
            backoff = backoff.restarts(self.max_restarts);
        }
        if self.first_wait != 0 {
            backoff = backoff.first(Duration::from_nanos(self.first_wait));
        }
        if self.longest_wait != 0 {
            backoff = backoff.longest(Duration::from_nanos(self.longest_wait));
        }
        backoff
    }
}

impl From<&Fault> for stateroom_fault {
    fn from(fault: &Fault) -> Self {
        match fault.cause {
            FaultCause::Trap(_) => Self::Trap,
            FaultCause::OutOfFuel { .. } => Self::OutOfFuel,
            FaultCause::BadPointer { .. } => Self::BadPointer,
            FaultCause::NotUtf8 => Self::NotUtf8,
            FaultCause::Undecodable(_) => Self::Undecodable,
            FaultCause::MessageTooLong { .. } => Self::MessageTooLong,
            FaultCause::TooManyMessages { .. } => Self::TooManyMessages,
            FaultCause::TooManyBytes { .. } => Self::TooManyBytes,
            FaultCause::BadAllocation { .. } => Self::BadAllocation,
            FaultCause::InvalidFunction => Self::InvalidFunction,
            FaultCause::Exit { .. } => Self::Exit,
            FaultCause::WrongVersion { .. } => Self::WrongVersion,
            _ => Self::Other,
        }
    }
}
