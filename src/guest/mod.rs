//! A guest: one instance of a module, called through its exports. Only the files of this folder
//! know the interpreter.

#[cfg(feature = "rollback")]
mod checkpoint;
mod engine;
mod exports;
mod fuel;
mod host_state;
mod imports;
#[cfg(feature = "rollback")]
mod instrument;
#[cfg(any(feature = "rollback", all(feature = "trim", target_os = "linux")))]
mod memory;
mod rng;
mod stdio;
#[cfg(all(feature = "trim", target_os = "linux"))]
mod trim;
#[cfg(feature = "unchecked")]
mod unchecked;
#[cfg(feature = "simd")]
mod wasmi_bugs;

#[cfg(feature = "rollback")]
pub(crate) use self::checkpoint::Checkpoint;
pub use self::engine::Compilation;
#[cfg(feature = "validate")]
pub(crate) use self::engine::validated;
#[cfg(feature = "unchecked")]
pub(crate) use self::unchecked::unchecked;
pub(crate) use self::{engine::Parse, host_state::Outbox};

use self::{
    exports::Exports,
    fuel::FuelMeter,
    host_state::{FaultCauseError, State},
};
use crate::{
    abi::{self, AbiVersion, Call, check},
    error::{EngineError, Fault, FaultCause, LoadError, OpenError, Trap},
    limits::Limits,
    time::Instant,
};
use alloc::boxed::Box;
#[cfg(feature = "rollback")]
use alloc::{string::String, vec::Vec};
use core::time::Duration;
use wasmi::{
    Error, Linker, Store, TrapCode, TypedResumableCall, TypedResumableCallOutOfFuel,
    errors::ErrorKind,
};

/// A module that was compiled and fits the ABI, with what its imports link to.
pub(crate) struct Compiled {
    module: wasmi::Module,
    linker: Linker<State>,
    pub(crate) abi: AbiVersion,
    pub(crate) limits: Limits,
    /// The exports that were added for the state of a guest, if it can be saved.
    #[cfg(feature = "rollback")]
    globals: Option<Vec<String>>,
}

impl Compiled {
    /// Compiles a module so that the state of its guests can be saved.
    #[cfg(feature = "rollback")]
    pub(crate) fn exposed(
        wasm: &[u8],
        limits: &Limits,
        compilation: Compilation,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        let exposed = instrument::expose(wasm).map_err(|error| match error {
            instrument::ExposeError::Hidden(what) => LoadError::HiddenState { what },
            instrument::ExposeError::Invalid(error) => LoadError::Invalid(EngineError::new(error)),
        })?;
        let compiled = Self::new(&exposed.wasm, limits, compilation, parse)?;
        Ok(Self {
            globals: Some(exposed.globals),
            ..compiled
        })
    }

    pub(crate) fn new(
        wasm: &[u8],
        limits: &Limits,
        compilation: Compilation,
        parse: Parse,
    ) -> Result<Self, LoadError> {
        #[cfg(feature = "simd")]
        if let Some(instruction) = wasmi_bugs::find_misread(wasm) {
            return Err(LoadError::Misread { instruction });
        }
        let invalid = |error| LoadError::Invalid(EngineError::new(error));
        let engine = engine::engine(limits, compilation);
        let module = parse(&engine, wasm).map_err(invalid)?;
        let abi = check(&engine::shape(&module, wasm))
            .map_err(|(abi, problems)| LoadError::Abi { abi, problems })?;
        let linker = imports::linker(&module).map_err(|error| invalid(error.into()))?;
        Ok(Self {
            module,
            linker,
            abi,
            limits: *limits,
            #[cfg(feature = "rollback")]
            globals: None,
        })
    }

    /// Whether the state of its guests can be saved.
    #[cfg(feature = "rollback")]
    pub(crate) const fn is_exposed(&self) -> bool {
        self.globals.is_some()
    }

    /// Imports (module, name, kind) and exports (name, kind).
    pub(crate) fn shape(&self) -> abi::ModuleShape<'_> {
        engine::shape(&self.module, &[])
    }
}

/// One instance of a module. A call may be paused when its slice of fuel is used up; until it was
/// resumed to its end, there is no other.
pub(crate) struct Guest {
    /// Boxed: it is most of a guest, and would be moved with it through the stack when a room is
    /// opened, which on a microcontroller is what the stack is needed for most.
    store: Box<Store<State>>,
    exports: Exports,
    /// Its mutable globals, if its state can be saved.
    #[cfg(feature = "rollback")]
    globals: Vec<wasmi::Global>,
    /// The guest's buffer for payloads: got from its allocator and kept, so that most events are
    /// one call instead of three. Never larger than the largest payload so far, so that the guest
    /// is never asked for more than the JIT host would ask it for.
    buffer: Buffer,
    /// Whether the constructor of a reactor has run.
    constructed: bool,
    /// The step that the running call is at.
    step: Step,
    /// That step, when it ran out of fuel.
    paused: Option<PausedStep>,
    meter: FuelMeter,
}

#[derive(Clone, Copy, Default)]
struct Buffer {
    ptr: u32,
    len: u32,
    /// Whether the guest's allocator gave it, and is to have it back.
    of_guest: bool,
}

/// How far a guest came within its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The call has ended.
    Done,
    /// The slice is used up in the middle of the call.
    Paused,
}

/// The exports that one [`Call`] takes, in this order; most need the last alone.
#[derive(Clone, Copy)]
enum Step {
    Construct,
    Free,
    Malloc,
    Deliver,
}

/// A call of an export that ran out of fuel.
enum PausedStep {
    Unit(TypedResumableCallOutOfFuel<()>),
    Pointer(TypedResumableCallOutOfFuel<u32>),
}

/// Ends a step early.
enum Stop {
    Fault(FaultCause),
    Pause,
}

impl Guest {
    /// Instantiates the module; its start function runs, within the fuel of one event.
    pub(crate) fn new(
        compiled: &Compiled,
        seed: u64,
        unix_time_at_zero: Duration,
    ) -> Result<Self, OpenError> {
        let limits = &compiled.limits;
        let mut meter = FuelMeter::new(limits);
        let mut store = new_store(compiled, State::new(limits, seed, unix_time_at_zero));
        meter.begin_event();
        meter.grant(&mut store, u64::MAX);
        let instance = compiled
            .linker
            .instantiate_and_start(&mut *store, &compiled.module)
            .map_err(|error| open_error(error, &store, &meter))?;
        let settled = meter.settle(&mut store);
        let fault = |cause| {
            OpenError::Fault(Fault {
                during: "start",
                cause,
            })
        };
        settled.map_err(fault)?;
        let exports = Exports::new(compiled.abi, &store, instance)
            .map_err(|error| OpenError::Instantiate(EngineError::new(error)))?;
        store.data_mut().memory = Some(exports.memory);
        store.data_mut().growth.instantiated = true;
        let constructed = exports.construct.is_none();
        #[cfg(feature = "rollback")]
        let globals = compiled.globals.iter().flatten();
        Ok(Self {
            #[cfg(feature = "rollback")]
            globals: globals
                .filter_map(|name| exports.instance.get_global(&*store, name))
                .collect(),
            store,
            exports,
            buffer: Buffer::default(),
            constructed,
            step: Step::Deliver,
            paused: None,
            meter,
        })
    }

    /// Begins a call. The guest must not be in the middle of another.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        call: &Call<'_>,
        slice: u64,
    ) -> Result<Progress, Fault> {
        debug_assert!(
            self.paused.is_none(),
            "a guest that is paused is never re-entered"
        );
        self.store.data_mut().begin_event(now);
        self.meter.begin_event();
        self.run(call, slice)
    }

    /// Goes on with a call that was paused; `call` is what it was begun with.
    pub(crate) fn resume(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        debug_assert!(self.paused.is_some(), "there is a paused call to resume");
        self.run(call, slice)
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.store.data().outbox
    }

    pub(crate) fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.store.data_mut().outbox
    }

    pub(crate) fn into_outbox(self) -> Outbox {
        self.store.into_data().outbox
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.store.data().deadline
    }

    /// The timer is about to fire: it is set no more, unless the guest sets it anew.
    pub(crate) fn clear_timer(&mut self) {
        self.store.data_mut().deadline = None;
    }

    /// The time of the event that it was called with last.
    #[cfg(feature = "rollback")]
    pub(crate) fn now(&self) -> Instant {
        self.store.data().now
    }

    /// Whether what the guest sends and prints is to be heard.
    #[cfg(feature = "rollback")]
    pub(crate) fn set_heard(&mut self, is_heard: bool) {
        self.store.data_mut().is_heard = is_heard;
    }

    /// All the fuel that the guest has used.
    pub(crate) const fn fuel_used(&self) -> u64 {
        self.meter.used
    }

    /// Bytes of linear memory that the guest has now.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.exports.memory.data(&*self.store).len()
    }

    /// Gives memory that is all zero back to the operating system; answers how many bytes.
    #[cfg(feature = "trim")]
    pub(crate) fn trim(&mut self) -> usize {
        #[cfg(target_os = "linux")]
        return trim::give_back_zero_pages(self.exports.memory.data_mut(&mut *self.store));
        #[cfg(not(target_os = "linux"))]
        return 0;
    }

    fn run(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        self.meter.grant(&mut self.store, slice);
        let taken = self.run_steps(call);
        match (taken, self.meter.settle(&mut self.store)) {
            (Ok(()), Ok(())) => Ok(Progress::Done),
            (taken, settled) => self.stopped(call, taken.err(), settled),
        }
    }

    /// What to make of a slice that did not bring a call to a good end.
    #[cold]
    fn stopped(
        &mut self,
        call: &Call<'_>,
        stop: Option<Stop>,
        settled: Result<(), FaultCause>,
    ) -> Result<Progress, Fault> {
        let outcome = match (stop, settled) {
            (Some(Stop::Fault(cause)), _) | (_, Err(cause)) => Err(cause),
            (_, Ok(())) => {
                let required = self.paused.as_ref().map_or(0, PausedStep::required_fuel);
                self.meter.require(required).map(|()| Progress::Paused)
            }
        };
        outcome.map_err(|cause| Fault {
            during: self.step_name(call),
            cause,
        })
    }

    /// Takes the steps of a call, from wherever it was paused.
    fn run_steps(&mut self, call: &Call<'_>) -> Result<(), Stop> {
        let needed = self.exports.handlers.payload_len(call);
        if self.paused.is_some() {
            self.resume_step(needed)?;
            if matches!(self.step, Step::Deliver) {
                return Ok(());
            }
        }
        loop {
            self.step = self.next_step(needed);
            if matches!(self.step, Step::Deliver) {
                return self.deliver(call, needed);
            }
            self.prepare(needed)?;
        }
    }

    const fn step_name(&self, call: &Call<'_>) -> &'static str {
        match (self.step, self.exports.handlers.abi()) {
            (Step::Construct, _) => "_initialize",
            (Step::Free, AbiVersion::V0_2) => "jam_free",
            (Step::Free, AbiVersion::V0_4) => "stateroom_free",
            (Step::Malloc, AbiVersion::V0_2) => "jam_malloc",
            (Step::Malloc, AbiVersion::V0_4) => "stateroom_malloc",
            (Step::Deliver, _) => self.exports.handlers.name(call),
        }
    }

    fn next_step(&self, needed: u32) -> Step {
        if !self.constructed {
            Step::Construct
        } else if needed <= self.buffer.len {
            Step::Deliver
        } else if self.buffer.of_guest {
            Step::Free
        } else {
            Step::Malloc
        }
    }

    /// Takes one of the steps before the event itself.
    fn prepare(&mut self, needed: u32) -> Result<(), Stop> {
        let store = &mut *self.store;
        match self.step {
            Step::Construct => {
                if let Some(construct) = self.exports.construct {
                    let result = construct.call_resumable(store, ());
                    self.finish(result, PausedStep::Unit)?;
                }
                self.constructed = true;
            }
            Step::Free => {
                let result = self
                    .exports
                    .free
                    .call_resumable(store, (self.buffer.ptr, self.buffer.len));
                self.finish(result, PausedStep::Unit)?;
                self.buffer = Buffer::default();
            }
            Step::Malloc => {
                let result = self.exports.malloc.call_resumable(store, needed);
                let ptr = self.finish(result, PausedStep::Pointer)?;
                self.allocated(ptr, needed)?;
            }
            Step::Deliver => {}
        }
        Ok(())
    }

    /// Puts the payload where the guest finds it, and calls it with the event.
    fn deliver(&mut self, call: &Call<'_>, needed: u32) -> Result<(), Stop> {
        if matches!(call, Call::Init { .. }) {
            self.check_versions().map_err(Stop::Fault)?;
        }
        let Buffer { ptr, len, .. } = self.buffer;
        let memory = self.exports.memory.data_mut(&mut *self.store);
        // A memory never shrinks, so that what was within it is within it still.
        let buffer = &mut memory[ptr as usize..][..len as usize];
        self.exports
            .handlers
            .write_payload(call, &mut buffer[..needed as usize]);
        let result = self
            .exports
            .handlers
            .call(&mut self.store, call, ptr, needed);
        self.finish(result, PausedStep::Unit)
    }

    fn resume_step(&mut self, needed: u32) -> Result<(), Stop> {
        match self.paused.take() {
            Some(PausedStep::Unit(paused)) => {
                let result = paused.resume(&mut *self.store);
                self.finish(result, PausedStep::Unit)?;
            }
            Some(PausedStep::Pointer(paused)) => {
                let result = paused.resume(&mut *self.store);
                let ptr = self.finish(result, PausedStep::Pointer)?;
                self.allocated(ptr, needed)?;
            }
            None => {}
        }
        match self.step {
            Step::Construct => self.constructed = true,
            Step::Free => self.buffer = Buffer::default(),
            Step::Malloc | Step::Deliver => {}
        }
        Ok(())
    }

    /// Takes what the guest's allocator answered.
    fn allocated(&mut self, ptr: u32, len: u32) -> Result<(), Stop> {
        let end = u64::from(ptr) + u64::from(len);
        self.buffer = match ptr {
            0 => self.buffer_beyond(len)?,
            _ if end > self.memory_bytes() as u64 => {
                return Err(Stop::Fault(FaultCause::BadAllocation { ptr, len }));
            }
            _ => Buffer {
                ptr,
                len,
                of_guest: true,
            },
        };
        Ok(())
    }

    /// A buffer in memory that is grown for it, for a guest whose allocator answered null.
    ///
    /// That is no rare guest: the published SDKs ask for an alignment of zero, which is undefined,
    /// and current compilers make an allocator of it that always answers null at some levels of
    /// optimisation. The JIT host then writes to address zero, over whatever the guest has there.
    fn buffer_beyond(&mut self, needed: u32) -> Result<Buffer, Stop> {
        let memory = self.exports.memory;
        let pages_before = memory.size(&*self.store);
        let page_bytes = self.page_bytes();
        // At least as much again, so that ever longer messages do not each leave a buffer behind.
        let len = needed.max(self.buffer.len.saturating_mul(2)).max(1);
        let pages = len.div_ceil(page_bytes);
        let none = Stop::Fault(FaultCause::BadAllocation {
            ptr: 0,
            len: needed,
        });
        if memory.grow(&mut *self.store, pages.into()).is_err() {
            return Err(none);
        }
        let ptr = pages_before * u64::from(page_bytes);
        let (Ok(ptr), Some(len)) = (u32::try_from(ptr), pages.checked_mul(page_bytes)) else {
            return Err(none);
        };
        Ok(Buffer {
            ptr,
            len,
            of_guest: false,
        })
    }

    /// The size of the memory's pages; a module may choose it.
    fn page_bytes(&self) -> u32 {
        match self.exports.memory.size(&*self.store) {
            0 => DEFAULT_PAGE_BYTES,
            pages => (self.memory_bytes() as u64 / pages) as u32,
        }
    }

    /// Before the first call, since a start function may have put the numbers there.
    fn check_versions(&self) -> Result<(), FaultCause> {
        let memory = self.exports.memory.data(&*self.store);
        for (name, expected) in abi::versions(self.exports.handlers.abi()) {
            let Some(global) = self.exports.instance.get_global(&*self.store, name) else {
                continue;
            };
            let address = global
                .get(&*self.store)
                .i32()
                .unwrap_or_default()
                .cast_unsigned();
            let number = memory
                .get(address as usize..)
                .and_then(|rest| rest.first_chunk());
            let Some(number) = number else {
                return Err(FaultCause::BadPointer {
                    function: name,
                    ptr: address,
                    len: 4,
                });
            };
            let found = i32::from_le_bytes(*number);
            if found != expected {
                return Err(FaultCause::WrongVersion {
                    name,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// What became of a call of an export.
    #[inline]
    fn finish<R>(
        &mut self,
        result: Result<TypedResumableCall<R>, Error>,
        pause: impl FnOnce(TypedResumableCallOutOfFuel<R>) -> PausedStep,
    ) -> Result<R, Stop> {
        match result {
            Ok(TypedResumableCall::Finished(result)) => Ok(result),
            Ok(TypedResumableCall::OutOfFuel(call)) => {
                self.paused = Some(pause(call));
                Err(Stop::Pause)
            }
            Ok(TypedResumableCall::HostTrap(call)) => Err(self.failed(call.host_error())),
            Err(error) => Err(self.failed(&error)),
        }
    }

    #[cold]
    fn failed(&self, error: &Error) -> Stop {
        Stop::Fault(cause(error, &self.store))
    }
}

/// Apart from [`Guest::new`], so that it is on the stack for no longer than it takes.
#[inline(never)]
fn new_store(compiled: &Compiled, state: State) -> Box<Store<State>> {
    let mut store = Box::new(Store::new(compiled.module.engine(), state));
    store.limiter(|state| &mut state.growth);
    store
}

/// The size of a page unless a module asks for another.
const DEFAULT_PAGE_BYTES: u32 = 64 << 10;

impl PausedStep {
    fn required_fuel(&self) -> u64 {
        match self {
            Self::Unit(call) => call.required_fuel(),
            Self::Pointer(call) => call.required_fuel(),
        }
    }
}

/// Why an instantiation failed: because of what the start function did, or before it.
fn open_error(error: Error, store: &Store<State>, meter: &FuelMeter) -> OpenError {
    let cause = match error.kind() {
        ErrorKind::TrapCode(TrapCode::OutOfFuel) => meter.exhausted(),
        ErrorKind::TrapCode(_) | ErrorKind::Host(_) => cause(&error, store),
        _ => return OpenError::Instantiate(EngineError::new(error)),
    };
    OpenError::Fault(Fault {
        during: "start",
        cause,
    })
}

fn cause(error: &Error, store: &Store<State>) -> FaultCause {
    if let Some(FaultCauseError(cause)) = error.downcast_ref() {
        return cause.clone();
    }
    if is_invalid(error.kind()) {
        return FaultCause::InvalidFunction;
    }
    FaultCause::Trap(match error.as_trap_code() {
        Some(TrapCode::UnreachableCodeReached) if store.data().growth.memory_refused => {
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

/// Whether it is of a function that could not be compiled.
const fn is_invalid(error: &ErrorKind) -> bool {
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
