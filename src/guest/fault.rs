//! From the interpreter's errors to faults.

use super::host_state::{FaultCauseError, HostState};
use crate::error::{Fault, FaultCause, Trap};
use wasmi::{
    Error, Store, TrapCode,
    errors::{ErrorKind, InstantiationError, MemoryError},
};

/// Why a module could not be instantiated, which is before any of its code runs: a segment does not
/// fit, or the host has no memory left. (All else is checked when it is loaded.)
#[cold]
pub(super) fn instantiation_fault(error: &Error) -> Fault {
    let trap = match error.kind() {
        ErrorKind::TrapCode(TrapCode::MemoryOutOfBounds) => Trap::MemoryOutOfBounds,
        ErrorKind::TrapCode(TrapCode::TableOutOfBounds)
        | ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit { .. }) => {
            Trap::TableOutOfBounds
        }
        ErrorKind::Memory(MemoryError::OutOfBoundsAccess) => Trap::MemoryOutOfBounds,
        ErrorKind::Memory(_) | ErrorKind::Instantiation(_) => Trap::OutOfSystemMemory,
        _ => Trap::Other,
    };
    Fault {
        during: "instantiate",
        cause: FaultCause::Trap(trap),
    }
}

pub(super) fn cause(error: &Error, store: &Store<HostState>) -> FaultCause {
    if let Some(FaultCauseError(cause)) = error.downcast_ref() {
        return cause.clone();
    }
    if is_invalid_function(error.kind()) {
        return FaultCause::InvalidFunction;
    }
    FaultCause::Trap(match error.as_trap_code() {
        Some(TrapCode::UnreachableCodeReached) if store.data().limiter.memory_refused => {
            Trap::UnreachableOutOfMemory
        }
        Some(TrapCode::UnreachableCodeReached) => Trap::Unreachable,
        Some(TrapCode::MemoryOutOfBounds) => Trap::MemoryOutOfBounds,
        Some(TrapCode::TableOutOfBounds) => Trap::TableOutOfBounds,
        Some(TrapCode::IndirectCallToNull) => Trap::IndirectCallToNull,
        Some(TrapCode::BadSignature) => Trap::BadSignature,
        Some(TrapCode::IntegerDivisionByZero) => Trap::DivisionByZero,
        Some(TrapCode::IntegerOverflow) => Trap::IntegerOverflow,
        Some(TrapCode::BadConversionToInteger) => Trap::BadConversion,
        Some(TrapCode::StackOverflow) => Trap::StackOverflow,
        Some(TrapCode::OutOfSystemMemory) => Trap::OutOfSystemMemory,
        _ => Trap::Other,
    })
}

/// Whether a function failed to compile when it was first called.
const fn is_invalid_function(error: &ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::Read(_)
            | ErrorKind::Wasm(_)
            | ErrorKind::Translation(_)
            | ErrorKind::UserLimits(_)
            | ErrorKind::ImplementationLimits(_)
            | ErrorKind::Ir(_)
    )
}
