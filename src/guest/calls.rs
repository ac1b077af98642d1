//! Delivers an event as a sequence of resumable calls.
//!
//! One event takes up to five calls of exports: a start function, a reactor's constructor, freeing the old buffer,
//! allocating a larger one, and the handler of the event. Most events are the last alone. Each call
//! has a function for what follows it, whether the call returned at once or after a pause.

use super::{Guest, buffer::Buffer, fault, wasmi_bugs::MAX_UNINTERRUPTED_FUEL};
use crate::{
    abi::Call,
    error::{Fault, FaultCause},
    time::Instant,
};
use wasmi::{Error, TypedFunc, TypedResumableCall, TypedResumableCallOutOfFuel as OutOfFuel};

/// How far a guest got within its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The event was handled.
    Done,
    /// The slice is used up before the event was handled.
    Paused,
}

/// A call that ran out of fuel.
pub(super) enum Pending {
    Startup(OutOfFuel<()>),
    Free(OutOfFuel<()>),
    Malloc(OutOfFuel<u32>),
    Deliver(OutOfFuel<()>),
}

/// The calls of an event, to name the one that failed.
#[derive(Clone, Copy)]
enum Step {
    Startup,
    Free,
    Malloc,
    Deliver,
}

/// Ends a slice before the event was handled.
struct Stop {
    step: Step,
    reason: StopReason,
}

enum StopReason {
    Fault(FaultCause),
    /// The next instruction of the pending call needs this much fuel.
    OutOfFuel(u64),
}

type CallResult<R> = Result<TypedResumableCall<R>, Error>;

impl Guest {
    /// Starts to deliver an event. The guest must not be paused.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        call: &Call<'_>,
        slice: u64,
    ) -> Result<Progress, Fault> {
        debug_assert!(!self.is_paused(), "a paused guest is never re-entered");
        let state = self.store.data_mut();
        match call {
            Call::Timer => state.begin_timer_event(now),
            _ => state.begin_event(now),
        }
        self.fuel.begin_event();
        self.run(call, slice)
    }

    /// Goes on after a pause; `call` is the one that the event began with.
    pub(crate) fn resume(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        debug_assert!(self.is_paused(), "there is a pending call to resume");
        self.run(call, slice)
    }

    /// Runs the guest for one slice.
    fn run(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        let mut left = slice;
        while left > MAX_UNINTERRUPTED_FUEL {
            let before = self.fuel.used;
            if self.run_uninterrupted(call, MAX_UNINTERRUPTED_FUEL)? == Progress::Done {
                return Ok(Progress::Done);
            }
            left = left.saturating_sub(self.fuel.used - before);
        }
        self.run_uninterrupted(call, left)
    }

    fn run_uninterrupted(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        self.fuel.grant(&mut self.store, slice);
        let result = match self.pending.take() {
            None => self.run_steps(call),
            Some(pending) => self.resume_steps(pending, call),
        };
        let result = match call {
            Call::Init { .. } => result.and_then(|()| self.check_versions(true)),
            _ => result,
        };
        match (result, self.fuel.account(&mut self.store)) {
            (Ok(()), Ok(())) => {
                self.store.data_mut().end_event();
                Ok(Progress::Done)
            }
            (result, accounted) => self.stopped(call, result.err(), accounted),
        }
    }

    /// The outcome of a slice that did not end with a handled event, or overdrew its fuel.
    #[cold]
    fn stopped(
        &mut self,
        call: &Call<'_>,
        stop: Option<Stop>,
        accounted: Result<(), FaultCause>,
    ) -> Result<Progress, Fault> {
        let (step, result) = match stop {
            None => (Step::Deliver, accounted),
            Some(Stop { step, reason }) => match reason {
                StopReason::Fault(cause) => (step, Err(cause)),
                StopReason::OutOfFuel(required) => {
                    (step, accounted.and_then(|()| self.fuel.require(required)))
                }
            },
        };
        let abi = self.exports.abi.description();
        let during = match step {
            Step::Startup => self
                .exports
                .startup
                .last()
                .map_or("start", |(name, _)| name),
            Step::Free => abi.free,
            Step::Malloc => abi.malloc,
            Step::Deliver => abi.handlers.of(call).export,
        };
        match result {
            Ok(()) => Ok(Progress::Paused),
            Err(cause) => {
                self.store.data_mut().end_event();
                Err(Fault { during, cause })
            }
        }
    }

    /// Makes the calls that are left.
    fn run_steps(&mut self, call: &Call<'_>) -> Result<(), Stop> {
        let needed = self.exports.abi.payload_len(call);
        if !self.exports.startup.is_empty() || needed > self.buffer.len {
            self.prepare(needed)?;
        }
        self.deliver(call, needed)
    }

    /// Resumes the pending call, and makes those that are left.
    ///
    /// Out of line, as the calls of [`prepare`](Self::prepare): what most events do not need takes no
    /// stack while a guest runs.
    #[inline(never)]
    fn resume_steps(&mut self, pending: Pending, call: &Call<'_>) -> Result<(), Stop> {
        let store = &mut *self.store;
        match pending {
            Pending::Startup(pending) => {
                let result = pending.resume(store);
                self.started(result)?;
            }
            Pending::Free(pending) => {
                let result = pending.resume(store);
                self.freed(result)?;
            }
            Pending::Malloc(pending) => {
                let result = pending.resume(store);
                self.allocated(result, self.exports.abi.payload_len(call))?;
            }
            Pending::Deliver(pending) => {
                let result = pending.resume(store);
                return self.delivered(result);
            }
        }
        self.run_steps(call)
    }

    /// Runs what comes before the guest's initialisation, and makes the buffer long enough for the payload.
    fn prepare(&mut self, needed: u32) -> Result<(), Stop> {
        while let Some((_, function)) = self.exports.startup.last() {
            self.start_up(*function)?;
        }
        if needed > self.buffer.len {
            self.free_buffer()?;
            self.allocate_buffer(needed)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn start_up(&mut self, function: TypedFunc<(), ()>) -> Result<(), Stop> {
        let result = function.call_resumable(&mut *self.store, ());
        self.started(result)
    }

    /// Frees the buffer, if the guest allocated it.
    #[inline(never)]
    fn free_buffer(&mut self) -> Result<(), Stop> {
        let Buffer { ptr, len, .. } = self.buffer;
        if !self.buffer.owned_by_guest {
            return Ok(());
        }
        let free = self.exports.free;
        let result = free.call_resumable(&mut *self.store, (ptr, len));
        self.freed(result)
    }

    #[inline(never)]
    fn allocate_buffer(&mut self, needed: u32) -> Result<(), Stop> {
        let result = self.exports.malloc.call_resumable(&mut *self.store, needed);
        self.allocated(result, needed)
    }

    /// Writes the payload into the buffer and calls the handler.
    fn deliver(&mut self, call: &Call<'_>, needed: u32) -> Result<(), Stop> {
        if matches!(call, Call::Init { .. }) {
            self.check_versions(false)?;
        }
        let Buffer { ptr, len, .. } = self.buffer;
        let memory = self.exports.memory.data_mut(&mut *self.store);
        // A memory never shrinks, so the buffer is still within it.
        let buffer = &mut memory[ptr as usize..][..len as usize];
        let payload = &mut buffer[..needed as usize];
        self.exports.abi.write_payload(call, payload);
        let result = self
            .exports
            .call_handler(&mut self.store, call, ptr, needed);
        self.delivered(result)
    }

    /// Checks the guest's version numbers if the JIT host looks at them at this time.
    #[cold]
    fn check_versions(&self, is_after_init: bool) -> Result<(), Stop> {
        if self.exports.abi.description().versions_after_init != is_after_init {
            return Ok(());
        }
        self.exports
            .check_versions(&self.store)
            .map_err(|cause| Stop::fault(Step::Deliver, cause))
    }

    fn started(&mut self, result: CallResult<()>) -> Result<(), Stop> {
        self.finish(Step::Startup, result, Pending::Startup)?;
        self.exports.startup.pop();
        Ok(())
    }

    fn freed(&mut self, result: CallResult<()>) -> Result<(), Stop> {
        self.finish(Step::Free, result, Pending::Free)?;
        self.buffer = Buffer::default();
        Ok(())
    }

    fn allocated(&mut self, result: CallResult<u32>, needed: u32) -> Result<(), Stop> {
        let ptr = self.finish(Step::Malloc, result, Pending::Malloc)?;
        let memory = self.exports.memory;
        self.buffer = Buffer::allocated(ptr, needed, self.buffer, memory, &mut self.store)
            .map_err(|cause| Stop::fault(Step::Malloc, cause))?;
        Ok(())
    }

    #[inline]
    fn delivered(&mut self, result: CallResult<()>) -> Result<(), Stop> {
        self.finish(Step::Deliver, result, Pending::Deliver)
    }

    #[inline]
    fn finish<R>(
        &mut self,
        step: Step,
        result: CallResult<R>,
        pending: fn(OutOfFuel<R>) -> Pending,
    ) -> Result<R, Stop> {
        match result {
            Ok(TypedResumableCall::Finished(result)) => Ok(result),
            Ok(TypedResumableCall::OutOfFuel(call)) => {
                let reason = StopReason::OutOfFuel(call.required_fuel());
                self.pending = Some(pending(call));
                Err(Stop { step, reason })
            }
            Ok(TypedResumableCall::HostTrap(call)) => Err(self.failed(step, call.host_error())),
            Err(error) => Err(self.failed(step, &error)),
        }
    }

    #[cold]
    fn failed(&self, step: Step, error: &Error) -> Stop {
        Stop::fault(step, fault::cause(error, &self.store))
    }
}

impl Stop {
    const fn fault(step: Step, cause: FaultCause) -> Self {
        let reason = StopReason::Fault(cause);
        Self { step, reason }
    }
}
