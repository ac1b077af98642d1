//! Detects clients that are silent.

use core::{
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Poll,
};
use std::time::Duration;
use tokio::time::Instant;

/// When a client was last heard from. The reading half of a connection writes it, the writing half
/// checks it.
pub(super) struct Liveness {
    since: Instant,
    last_nanos: AtomicU64,
    /// Whether reading is paused: by the rate limit, or by backpressure of the room. Meanwhile the
    /// client does not count as silent, since nothing of it could be read.
    is_paused: AtomicBool,
}

impl Liveness {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            last_nanos: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
        }
    }

    /// Records that the client was heard from; returns the time, in nanoseconds.
    pub(super) fn touch(&self) -> u64 {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_nanos.store(nanos, Ordering::Relaxed);
        nanos
    }

    pub(super) fn last(&self) -> Instant {
        self.since + Duration::from_nanos(self.last_nanos.load(Ordering::Relaxed))
    }

    /// Awaits `future`, during which the client is not read from.
    pub(super) async fn while_paused<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        // Usually it is ready at once; that saves reading the clock.
        if let Poll::Ready(value) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return value;
        }
        self.set_paused(true);
        let value = future.await;
        self.set_paused(false);
        value
    }

    fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
        self.touch();
    }

    /// Whether the client has been silent for at least this long.
    pub(super) fn is_silent_for(&self, time: Duration) -> bool {
        if self.is_paused.load(Ordering::Relaxed) {
            self.touch();
        }
        self.last().elapsed() >= time
    }
}
