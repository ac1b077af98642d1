//! From the interpreter's errors to faults.

use super::{
    fuel::FuelMeter,
    host_state::{FaultCauseError, HostState},
};
use crate::error::{EngineError, Fault, FaultCause, OpenError, Trap};
use wasmi::{Error, Store, TrapCode, errors::ErrorKind};

/// The error of an instantiation: a fault of the start function, or one before that runs.
pub(super) fn instantiation_error(
    error: Error,
    store: &Store<HostState>,
    fuel: &FuelMeter,
) -> OpenError {
    let cause = match error.kind() {
        ErrorKind::TrapCode(TrapCode::OutOfFuel) => fuel.exhausted(),
        ErrorKind::TrapCode(_) | ErrorKind::Host(_) => cause(&error, store),
        _ => return OpenError::Instantiate(EngineError::new(error)),
    };
    OpenError::Fault(start_fault(cause))
}

pub(super) const fn start_fault(cause: FaultCause) -> Fault {
    Fault {
        during: "start",
        cause,
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
