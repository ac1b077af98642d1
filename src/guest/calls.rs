//! Delivers an event as a sequence of resumable calls.
//!
//! As under the JIT hosts, a payload is allocated, handled and freed: three calls of exports. Before
//! the first event there are a start function, a reactor's constructor and, where the ABI has it, the
//! room's id, which is allocated and freed again. A guest that keeps its buffer is called with the
//! event alone, unless the payload is longer than the buffer: then that is freed and a longer one is
//! allocated. Each call has a function for what follows it, whether it returned at once or after a
//! pause.

use super::{Guest, buffer::Buffer, fault, wasmi_bugs::MAX_UNINTERRUPTED_FUEL};
use crate::{
    abi::Call,
    error::{Fault, FaultCause},
    time::Instant,
};
use core::mem;
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
    Malloc(OutOfFuel<u32>),
    Act(Act, OutOfFuel<()>),
    #[cfg(feature = "snapshot")]
    Save(OutOfFuel<u64>),
}

/// A call without a result.
#[derive(Clone, Copy)]
pub(super) enum Act {
    Startup,
    /// Frees a buffer that another is to replace.
    Free,
    Deliver,
    /// Frees the buffer of the event that was handled.
    Release,
}

/// The calls of an event, to name the one that failed.
#[derive(Clone, Copy)]
enum Step {
    Malloc,
    Act(Act),
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
        let before = self.fuel.used;
        let piece = slice.min(MAX_UNINTERRUPTED_FUEL);
        self.fuel.grant(&mut self.store, piece);
        let result = self.run_steps(call);
        match self.end_piece(call, result) {
            Ok(Progress::Paused) => match self.left(slice, piece, before) {
                0 => Ok(Progress::Paused),
                left => self.resume(call, left),
            },
            result => result,
        }
    }

    /// Goes on after a pause; `call` is the one that the event began with.
    pub(crate) fn resume(&mut self, call: &Call<'_>, slice: u64) -> Result<Progress, Fault> {
        debug_assert!(self.is_paused(), "there is a pending call to resume");
        let mut left = slice;
        loop {
            let before = self.fuel.used;
            let piece = left.min(MAX_UNINTERRUPTED_FUEL);
            self.fuel.grant(&mut self.store, piece);
            let result = match self.pending.take() {
                Some(pending) => self.resume_steps(pending, call),
                None => Ok(()),
            };
            if self.end_piece(call, result)? == Progress::Done {
                return Ok(Progress::Done);
            }
            left = self.left(left, piece, before);
            if left == 0 {
                return Ok(Progress::Paused);
            }
        }
    }

    /// What is left of a slice after a piece of it that began when so much fuel had been used. What is
    /// less than the next instruction needs is left for no other.
    const fn left(&self, slice: u64, piece: u64, used_before: u64) -> u64 {
        match slice - piece {
            0 => 0,
            _ => slice.saturating_sub(self.fuel.used - used_before),
        }
    }

    /// Accounts for a piece of a slice.
    #[inline(always)]
    fn end_piece(&mut self, call: &Call<'_>, result: Result<(), Stop>) -> Result<Progress, Fault> {
        match (result, self.fuel.account(&mut self.store)) {
            (Ok(()), Ok(())) => {
                self.store.data_mut().end_event();
                Ok(Progress::Done)
            }
            (result, accounted) => self.stopped(call, result.err(), accounted),
        }
    }

    /// The outcome of a piece that did not end with a handled event, or overdrew its fuel.
    #[cold]
    fn stopped(
        &mut self,
        call: &Call<'_>,
        stop: Option<Stop>,
        accounted: Result<(), FaultCause>,
    ) -> Result<Progress, Fault> {
        let (step, result) = match stop {
            None => (Step::Act(Act::Deliver), accounted),
            Some(Stop { step, reason }) => match reason {
                StopReason::Fault(cause) => (step, Err(cause)),
                StopReason::OutOfFuel(required) => {
                    (step, accounted.and_then(|()| self.fuel.require(required)))
                }
            },
        };
        let Err(cause) = result else {
            return Ok(Progress::Paused);
        };
        Err(self.fail(call, step, cause))
    }

    /// Fails the event that is paused; `call` is the one that it began with.
    pub(crate) fn interrupt(&mut self, call: &Call<'_>) -> Fault {
        let step = match self.pending {
            Some(Pending::Malloc(_)) => Step::Malloc,
            Some(Pending::Act(act, _)) => Step::Act(act),
            #[cfg(feature = "snapshot")]
            Some(Pending::Save(_)) => Step::Act(Act::Deliver),
            None => Step::Act(Act::Deliver),
        };
        self.fail(call, step, FaultCause::Interrupted)
    }

    /// Drops what is left of an event, and names the export that was running.
    fn fail(&mut self, call: &Call<'_>, step: Step, cause: FaultCause) -> Fault {
        self.abandon();
        let abi = self.exports.abi.description();
        let during = match step {
            Step::Malloc => abi.malloc,
            Step::Act(Act::Startup) => self
                .exports
                .startup
                .last()
                .map_or("start", |(name, _)| name),
            Step::Act(Act::Free | Act::Release) => abi.free,
            Step::Act(Act::Deliver) => abi.handlers.of(call).export,
        };
        Fault { during, cause }
    }

    /// Drops what is left of an event that failed: the guest can be called with the next one.
    ///
    /// What was allocated for the event is not freed, as under the JIT host: a guest that failed in
    /// the middle of something is not asked for more.
    pub(super) fn abandon(&mut self) {
        self.store.data_mut().end_event();
        self.pending = None;
        if !self.keeps_buffer {
            self.buffer = Buffer::default();
        }
    }

    /// Makes the calls that are left, from the first that was not begun.
    fn run_steps(&mut self, call: &Call<'_>) -> Result<(), Stop> {
        #[cfg(feature = "snapshot")]
        if let Call::Save = call {
            let result = self.exports.call_save(&mut self.store);
            return self.saved(result);
        }
        let needed = self.exports.abi.payload_len(call);
        if let Some(needed) = needed
            && needed >= self.buffer.limit
        {
            self.prepare(call, needed)?;
        }
        self.deliver(call, needed)?;
        self.release(call)
    }

    /// Resumes the pending call, and makes those that are left.
    ///
    /// Out of line, as the calls of [`prepare`](Self::prepare): what most events do not need takes no
    /// stack while a guest runs.
    #[inline(never)]
    fn resume_steps(&mut self, pending: Pending, call: &Call<'_>) -> Result<(), Stop> {
        let store = &mut *self.store;
        match pending {
            Pending::Malloc(pending) => {
                let result = pending.resume(store);
                match self.owed_room_id(call) {
                    Some(room_id) => {
                        self.allocated(result, len_of(room_id))?;
                        self.show_room_id(room_id)?;
                    }
                    None => {
                        let needed = self.exports.abi.payload_len(call).unwrap_or_default();
                        self.allocated(result, needed)?;
                    }
                }
            }
            Pending::Act(act, pending) => {
                let result = pending.resume(store);
                self.acted(act, result)?;
                match act {
                    Act::Startup => drop(self.exports.startup.pop()),
                    Act::Free => self.owes_room_id = false,
                    Act::Deliver => return self.release(call),
                    Act::Release => return self.check_versions(call, true),
                }
            }
            #[cfg(feature = "snapshot")]
            Pending::Save(pending) => {
                let result = pending.resume(store);
                return self.saved(result);
            }
        }
        self.run_steps(call)
    }

    /// Makes the calls that precede the guest's initialisation, and allocates a buffer for the payload.
    #[inline(never)]
    fn prepare(&mut self, call: &Call<'_>, needed: u32) -> Result<(), Stop> {
        while let Some((_, function)) = self.exports.startup.last() {
            self.start_up(*function)?;
        }
        if let Some(room_id) = self.owed_room_id(call) {
            self.allocate(len_of(room_id))?;
            self.show_room_id(room_id)?;
        }
        self.check_versions(call, false)?;
        self.free(Act::Free)?;
        self.allocate(needed)
    }

    #[inline(never)]
    fn start_up(&mut self, function: TypedFunc<(), ()>) -> Result<(), Stop> {
        let result = function.call_resumable(&mut *self.store, ());
        self.acted(Act::Startup, result)?;
        self.exports.startup.pop();
        Ok(())
    }

    /// The room's id, if it is still to be allocated and freed.
    const fn owed_room_id<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
        match *call {
            Call::Init { room_id } if self.owes_room_id => Some(room_id),
            _ => None,
        }
    }

    /// Writes the id into its buffer and frees that.
    fn show_room_id(&mut self, room_id: &str) -> Result<(), Stop> {
        self.buffer_mut(len_of(room_id))
            .copy_from_slice(room_id.as_bytes());
        self.free(Act::Free)?;
        self.owes_room_id = false;
        Ok(())
    }

    /// Frees the buffer of an event that was handled, unless it is kept.
    #[inline]
    fn release(&mut self, call: &Call<'_>) -> Result<(), Stop> {
        // A state is longer than what it would be kept for.
        if !self.keeps_buffer || matches!(call, Call::Load(_)) {
            self.free(Act::Release)?;
        }
        self.check_versions(call, true)
    }

    /// Checks the guest's version numbers, if this is when the JIT host looks at them: before or after
    /// the guest is initialised.
    #[inline]
    fn check_versions(&self, call: &Call<'_>, is_after_init: bool) -> Result<(), Stop> {
        match call {
            Call::Init { .. } => self.check_versions_now(is_after_init),
            _ => Ok(()),
        }
    }

    #[cold]
    fn check_versions_now(&self, is_after_init: bool) -> Result<(), Stop> {
        if self.exports.abi.description().versions_after_init != is_after_init {
            return Ok(());
        }
        self.exports
            .check_versions(&self.store)
            .map_err(|cause| Stop::fault(Step::Act(Act::Deliver), cause))
    }

    /// Frees the buffer, if the guest allocated it.
    #[inline(never)]
    fn free(&mut self, act: Act) -> Result<(), Stop> {
        let buffer = mem::take(&mut self.buffer);
        if !buffer.owned_by_guest {
            return Ok(());
        }
        let free = self.exports.free;
        let result = free.call_resumable(&mut *self.store, (buffer.ptr, buffer.len()));
        self.acted(act, result)
    }

    #[inline(never)]
    fn allocate(&mut self, needed: u32) -> Result<(), Stop> {
        let result = self.exports.malloc.call_resumable(&mut *self.store, needed);
        self.allocated(result, needed)
    }

    /// Writes the payload into the buffer, if the event has one, and calls the handler.
    fn deliver(&mut self, call: &Call<'_>, needed: Option<u32>) -> Result<(), Stop> {
        let len = needed.unwrap_or_default();
        let abi = self.exports.abi;
        abi.write_payload(call, self.buffer_mut(len));
        let ptr = self.buffer.ptr;
        let result = self.exports.call_handler(&mut self.store, call, ptr, len);
        self.acted(Act::Deliver, result)
    }

    /// The first bytes of the buffer, which is at least as long.
    #[inline]
    fn buffer_mut(&mut self, len: u32) -> &mut [u8] {
        let memory = self.exports.memory.data_mut(&mut *self.store);
        // A memory never shrinks, so the buffer is still within it.
        &mut memory[self.buffer.ptr as usize..][..len as usize]
    }

    fn allocated(&mut self, result: CallResult<u32>, needed: u32) -> Result<(), Stop> {
        let ptr = self.finish(Step::Malloc, result, Pending::Malloc)?;
        let memory = self.exports.memory;
        self.buffer = Buffer::allocated(ptr, needed, &mut self.pages, memory, &mut self.store)
            .map_err(|cause| Stop::fault(Step::Malloc, cause))?;
        Ok(())
    }

    /// Where the guest has put its state.
    #[cfg(feature = "snapshot")]
    #[cold]
    fn saved(&mut self, result: CallResult<u64>) -> Result<(), Stop> {
        let state = self.finish(Step::Act(Act::Deliver), result, Pending::Save)?;
        self.saved = Some(((state >> 32) as u32, state as u32));
        Ok(())
    }

    /// What follows a call without a result; out of line if it did not finish.
    #[inline]
    fn acted(&mut self, act: Act, result: CallResult<()>) -> Result<(), Stop> {
        match result {
            Ok(TypedResumableCall::Finished(())) => Ok(()),
            result => self.not_finished(act, result),
        }
    }

    #[cold]
    fn not_finished(&mut self, act: Act, result: CallResult<()>) -> Result<(), Stop> {
        self.finish(Step::Act(act), result, |call| Pending::Act(act, call))
    }

    #[inline]
    fn finish<R>(
        &mut self,
        step: Step,
        result: CallResult<R>,
        pending: impl FnOnce(OutOfFuel<R>) -> Pending,
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

/// The length of a room's id; one that no memory can hold saturates, and the allocator refuses it.
fn len_of(room_id: &str) -> u32 {
    u32::try_from(room_id.len()).unwrap_or(u32::MAX)
}
