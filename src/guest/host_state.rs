//! What the imports of a guest act on: the data of its store.

use super::{rng::Random, stdio::LineBuffer};
use crate::{
    error::FaultCause,
    event::{MessagePayload, MessageRecipient, OutputHeader},
    limits::Limits,
    storage::PayloadQueue,
    time::Instant,
};
use core::{fmt, time::Duration};
use wasmi::{Memory, ResourceLimiter, errors::HostError};
use wasmi_core::LimiterError;

/// The messages that a room sends, until the host has taken them.
pub(crate) type Outbox = PayloadQueue<OutputHeader>;

pub(super) struct State {
    /// The guest's memory; none while it is being instantiated.
    pub(super) memory: Option<Memory>,
    pub(super) outbox: Outbox,
    /// What the running event may still send. Counted here and not in the outbox, since that is
    /// emptied while the guest is paused.
    messages_left: usize,
    bytes_left: usize,
    /// When the timer runs off.
    pub(super) deadline: Option<Instant>,
    /// The `now` of the running event.
    pub(super) now: Instant,
    /// The wall time at [`Instant::ZERO`], since the Unix epoch.
    pub(super) unix_time_at_zero: Duration,
    /// The only randomness a guest gets.
    pub(super) random: Random,
    pub(super) printed: LineBuffer,
    /// Whether what it sends and prints goes out; not while events are run again.
    #[cfg(feature = "rollback")]
    pub(super) is_heard: bool,
    /// Whether fuel is counted at all.
    pub(super) is_metered: bool,
    /// Fuel that imports used beyond what was left of the slice.
    pub(super) fuel_debt: u64,
    limits: SendLimits,
    pub(super) growth: Growth,
}

/// The limits of what a guest sends.
struct SendLimits {
    max_message_bytes: usize,
    max_outbox_messages: usize,
    max_outbox_bytes: usize,
}

impl State {
    pub(super) fn new(limits: &Limits, seed: u64, unix_time_at_zero: Duration) -> Self {
        Self {
            memory: None,
            outbox: Outbox::new(),
            messages_left: limits.max_outbox_messages,
            bytes_left: limits.max_outbox_bytes,
            deadline: None,
            now: Instant::ZERO,
            unix_time_at_zero,
            random: Random::new(seed),
            printed: LineBuffer::default(),
            #[cfg(feature = "rollback")]
            is_heard: true,
            is_metered: limits.max_fuel_per_event.is_some(),
            fuel_debt: 0,
            limits: SendLimits {
                max_message_bytes: limits.max_message_bytes,
                max_outbox_messages: limits.max_outbox_messages,
                max_outbox_bytes: limits.max_outbox_bytes,
            },
            growth: Growth {
                memory_bytes: limits.max_memory_bytes,
                table_elements: limits.max_table_elements,
                elements: 0,
                instantiated: false,
                memory_refused: false,
            },
        }
    }

    pub(super) fn begin_event(&mut self, now: Instant) {
        self.now = now;
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
            max_outbox_messages,
            max_outbox_bytes,
        } = self.limits;
        if payload.len() > max_message_bytes {
            return Err(FaultCause::MessageTooLong {
                bytes: payload.len(),
                limit: max_message_bytes,
            });
        }
        self.messages_left =
            self.messages_left
                .checked_sub(1)
                .ok_or(FaultCause::TooManyMessages {
                    limit: max_outbox_messages,
                })?;
        self.bytes_left =
            self.bytes_left
                .checked_sub(payload.len())
                .ok_or(FaultCause::TooManyBytes {
                    limit: max_outbox_bytes,
                })?;
        if self.is_heard() {
            self.outbox.push(OutputHeader::Message(recipient), payload);
        }
        Ok(())
    }

    pub(super) fn print(&mut self, fd: u32, bytes: &[u8]) {
        if self.is_heard() {
            self.printed.write(fd, bytes);
        }
    }

    const fn is_heard(&self) -> bool {
        #[cfg(feature = "rollback")]
        return self.is_heard;
        #[cfg(not(feature = "rollback"))]
        return true;
    }

    /// Zero cancels; whatever was set before is replaced.
    pub(super) fn set_timer(&mut self, ms_delay: u32) {
        self.deadline = match ms_delay {
            0 => None,
            ms => Some(self.now + Duration::from_millis(ms.into())),
        };
    }
}

/// Bounds memories and tables.
pub(super) struct Growth {
    memory_bytes: usize,
    table_elements: usize,
    /// Elements of all tables together.
    elements: usize,
    /// Set when the guest is there and only its own instructions can ask for more.
    pub(super) instantiated: bool,
    /// Whether the guest ever asked for more memory than it may have, to explain what follows.
    pub(super) memory_refused: bool,
}

/// Elements by which a table may grow at once while the guest runs.
///
/// wasmi 2.0.0 resumes at the wrong instruction when `table.grow` itself is what runs out of fuel.
/// It charges a unit for each eight elements, so that this many are free and never pause.
const TABLE_STEP: usize = 7;

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let allowed = desired <= self.memory_bytes;
        self.memory_refused |= !allowed;
        Ok(allowed && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        let more = desired.saturating_sub(current);
        let total = self.elements.saturating_add(more);
        let allowed = total <= self.table_elements
            && maximum.is_none_or(|maximum| desired <= maximum)
            && (!self.instantiated || more <= TABLE_STEP);
        if allowed {
            self.elements = total;
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        // Each costs some bytes even when it is empty.
        64
    }

    fn memories(&self) -> usize {
        1
    }
}

/// Carries the fault of an import through wasmi to the caller of the guest.
#[derive(Debug)]
pub(super) struct FaultCauseError(pub(super) FaultCause);

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
