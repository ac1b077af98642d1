//! WASI's `poll_oneoff`, by which guests sleep.

use super::{
    super::context::{CALL, memory, spend},
    EBADF, EFAULT, EINVAL, Errno, MAX_BYTES_PER_CALL, SUCCESS,
    clock::GuestClock,
    slice, write,
};
use crate::{
    abi::wasi::{PollResult, SubscribedEvent, Subscription, WasiVersion},
    guest::host_state::HostState,
    time::Instant,
};
use core::time::Duration;
use wasmi::{Caller, Error};

/// As many as a runtime may reasonably have, to bound one call.
const MAX_SUBSCRIPTIONS: u32 = 1024;

/// Waits until the first of some events, without waiting: the guest's clock moves on.
///
/// Standard input is at its end, and what is written to the other streams is taken at once, so
/// that only a guest that waits for nothing but time sleeps.
pub(super) fn poll_oneoff(
    mut caller: Caller<'_, HostState>,
    version: WasiVersion,
    subscriptions: u32,
    events: u32,
    count: u32,
    events_written: u32,
) -> Result<Errno, Error> {
    let is_valid = (1..=MAX_SUBSCRIPTIONS).contains(&count);
    let charged = if is_valid { count } else { 0 };
    spend(&mut caller, CALL + u64::from(charged) * CALL)?;
    if !is_valid {
        return Ok(EINVAL);
    }
    let (memory, state) = memory(&mut caller);
    let poll = Poll {
        version,
        subscriptions,
        count: count as usize,
    };
    match poll.run(memory, &mut state.wasi.clock, events, events_written) {
        Ok(()) => Ok(SUCCESS),
        Err(errno) => Ok(errno),
    }
}

/// An array of subscriptions in a guest's memory.
struct Poll {
    version: WasiVersion,
    subscriptions: u32,
    count: usize,
}

impl Poll {
    /// Writes the events, and their number. Nothing happens if that fails.
    fn run(
        &self,
        memory: &mut [u8],
        clock: &mut GuestClock,
        events: u32,
        events_written: u32,
    ) -> Result<(), Errno> {
        slice(memory, events, self.count * Subscription::EVENT_LEN).ok_or(EFAULT)?;
        slice(memory, events_written, 4).ok_or(EFAULT)?;
        let started = clock.now();
        let mut first = Instant::MAX;
        for i in 0..self.count {
            let subscription = self.read(memory, i)?;
            first = first.min(due(&subscription.event, clock, started));
        }
        clock.sleep_until(first);
        // The first is due, even if the event may not sleep so long.
        let now = first.max(clock.now());
        let mut written = 0_u32;
        for i in 0..self.count {
            // If the guest let the two arrays overlap, a subscription may be overwritten by now.
            let Ok(subscription) = self.read(memory, i) else {
                continue;
            };
            if due(&subscription.event, clock, started) <= now {
                let at = events + written * Subscription::EVENT_LEN as u32;
                let event = subscription.encode_event(result(&subscription.event));
                write(memory, at, &event).ok_or(EFAULT)?;
                written += 1;
            }
        }
        write(memory, events_written, &written.to_le_bytes()).ok_or(EFAULT)
    }

    fn read(&self, memory: &[u8], i: usize) -> Result<Subscription, Errno> {
        let len = self.version.subscription_len();
        let all = slice(memory, self.subscriptions, self.count * len).ok_or(EFAULT)?;
        let bytes = &all[i * len..][..len];
        self.version.decode_subscription(bytes).ok_or(EINVAL)
    }
}

/// When an event occurs, for a guest that started to wait at this time.
fn due(event: &SubscribedEvent, clock: &GuestClock, started: Instant) -> Instant {
    match *event {
        SubscribedEvent::Clock {
            clock: id,
            timeout,
            is_absolute: true,
        } => clock.when(id, timeout),
        SubscribedEvent::Clock {
            timeout,
            is_absolute: false,
            ..
        } => started + Duration::from_nanos(timeout),
        SubscribedEvent::Readable(_) | SubscribedEvent::Writable(_) => started,
    }
}

const fn result(event: &SubscribedEvent) -> PollResult {
    let mut result = PollResult {
        errno: SUCCESS as u16,
        available: 0,
        is_hung_up: false,
    };
    match event {
        SubscribedEvent::Clock { .. } => {}
        SubscribedEvent::Readable(0) => result.is_hung_up = true,
        SubscribedEvent::Writable(1 | 2) => result.available = MAX_BYTES_PER_CALL as u64,
        SubscribedEvent::Readable(_) | SubscribedEvent::Writable(_) => result.errno = EBADF as u16,
    }
    result
}
