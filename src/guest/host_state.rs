//! The host's state of a guest, which its imports act on.

use super::{imports::wasi::WasiState, limiter::Limiter, stdio::Stdio, timer::Timer};
use crate::{
    error::FaultCause,
    event::{MessagePayload, MessageRecipient, OutputHeader},
    limits::Limits,
    storage::PayloadQueue,
    time::Instant,
};
use core::{fmt, time::Duration};
use wasmi::{Memory, errors::HostError};

/// The outputs of a room, until the host has taken them.
pub(crate) type Outbox = PayloadQueue<OutputHeader>;

pub(super) struct HostState {
    /// The guest's memory; none until the module is instantiated.
    pub(super) memory: Option<Memory>,
    pub(super) outbox: Outbox,
    /// What the running event may still send. Counted here and not in the outbox, which is emptied
    /// while the guest is paused.
    messages_left: usize,
    bytes_left: usize,
    pub(super) timer: Timer,
    /// The `now` of the running event.
    pub(super) now: Instant,
    pub(super) wasi: WasiState,
    pub(super) stdio: Stdio,
    /// False while events are replayed: what the guest sends and prints is discarded.
    pub(super) outputs_enabled: bool,
    /// Whether fuel is metered.
    pub(super) is_metered: bool,
    /// Fuel that imports used beyond what was left of the slice.
    pub(super) fuel_debt: u64,
    /// Fuel that the event has beyond the slice.
    pub(super) fuel_beyond_slice: u64,
    max_fuel_per_event: u64,
    limits: SendLimits,
    pub(super) limiter: Limiter,
}

/// The limits of the messages that a guest sends.
struct SendLimits {
    max_message_bytes: usize,
    max_outbox_messages: usize,
    max_outbox_bytes: usize,
}

impl HostState {
    pub(super) fn new(
        limits: &Limits,
        seed: u64,
        unix_time_at_zero: Duration,
        timer: Timer,
        stdio: Stdio,
    ) -> Self {
        Self {
            memory: None,
            outbox: Outbox::new(),
            messages_left: limits.max_outbox_messages,
            bytes_left: limits.max_outbox_bytes,
            timer,
            now: Instant::ZERO,
            wasi: WasiState::new(seed, unix_time_at_zero),
            stdio,
            outputs_enabled: true,
            is_metered: limits.max_fuel_per_event.is_some(),
            fuel_debt: 0,
            fuel_beyond_slice: 0,
            max_fuel_per_event: limits.max_fuel_per_event.unwrap_or(u64::MAX),
            limits: SendLimits {
                max_message_bytes: limits.max_message_bytes,
                max_outbox_messages: limits.max_outbox_messages,
                max_outbox_bytes: limits.max_outbox_bytes,
            },
            limiter: Limiter::new(limits),
        }
    }

    pub(super) fn begin_event(&mut self, now: Instant) {
        self.now = now;
        self.wasi.begin_event(now);
        self.timer.begin_event(now);
        self.messages_left = self.limits.max_outbox_messages;
        self.bytes_left = self.limits.max_outbox_bytes;
    }

    pub(super) fn send(
        &mut self,
        recipient: MessageRecipient,
        payload: MessagePayload<'_>,
    ) -> Result<(), FaultCause> {
        let SendLimits {
            max_message_bytes,
            max_outbox_bytes,
            ..
        } = self.limits;
        if payload.len() > max_message_bytes {
            return Err(FaultCause::MessageTooLong {
                bytes: payload.len(),
                limit: max_message_bytes,
            });
        }
        self.count_message()?;
        self.bytes_left =
            self.bytes_left
                .checked_sub(payload.len())
                .ok_or(FaultCause::TooManyBytes {
                    limit: max_outbox_bytes,
                })?;
        if self.outputs_enabled() {
            self.outbox.push(OutputHeader::Message(recipient), payload);
        }
        Ok(())
    }

    #[allow(dead_code, reason = "only WASI prints")]
    pub(super) fn print(&mut self, fd: u32, bytes: &[u8]) {
        if self.outputs_enabled() {
            self.stdio.write(self.now, fd, bytes);
        }
    }

    /// The event has ended, well or not.
    #[inline]
    pub(super) fn end_event(&mut self) {
        self.stdio.log.end_event(self.now);
    }

    /// # Errors
    ///
    /// If the event has no fuel for what imports have used.
    pub(super) const fn check_debt(&self) -> Result<(), FaultCause> {
        if self.fuel_debt > self.fuel_beyond_slice {
            return Err(FaultCause::OutOfFuel {
                limit: self.max_fuel_per_event,
            });
        }
        Ok(())
    }

    const fn outputs_enabled(&self) -> bool {
        !cfg!(feature = "snapshot") || self.outputs_enabled
    }

    /// Begins the event of the timer.
    pub(super) fn begin_timer_event(&mut self, now: Instant) {
        self.begin_event(now);
        self.timer.begin_own_event(now);
    }

    /// Replaces the timer, by one that fires after this many milliseconds or by none.
    ///
    /// # Errors
    ///
    /// If the driver keeps the timer, and the event has no output left for the request.
    pub(super) fn set_timer(&mut self, ms_delay: Option<u32>) -> Result<(), FaultCause> {
        match &mut self.timer {
            Timer::Room { deadline, earliest } => {
                *deadline = ms_delay.map(|ms_delay| {
                    let deadline = self.now + Duration::from_millis(ms_delay.into());
                    deadline.max(*earliest)
                });
            }
            Timer::Driver => {
                self.count_message()?;
                if self.outputs_enabled() {
                    let header = OutputHeader::timer(ms_delay);
                    self.outbox.push(header, MessagePayload::EMPTY);
                }
            }
        }
        Ok(())
    }

    /// Counts an output of the guest.
    fn count_message(&mut self) -> Result<(), FaultCause> {
        let limit = self.limits.max_outbox_messages;
        self.messages_left = self
            .messages_left
            .checked_sub(1)
            .ok_or(FaultCause::TooManyMessages { limit })?;
        Ok(())
    }
}

/// The fault of an import, carried through the interpreter to the caller of the guest.
pub(super) struct FaultCauseError(pub(super) FaultCause);

/// The interpreter wants it for its own errors. As `Display`, so that firmware has no second text for
/// each cause.
impl fmt::Debug for FaultCauseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FaultCauseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl HostError for FaultCauseError {}

impl From<FaultCause> for FaultCauseError {
    fn from(cause: FaultCause) -> Self {
        Self(cause)
    }
}
