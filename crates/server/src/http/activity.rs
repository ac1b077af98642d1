//! Whether anybody uses the server.

use serde::Serialize;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The WebSockets that are open, and since when there are none.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

struct State {
    connections: usize,
    /// When the last of them ended, or the server began. Counts while there are none.
    inactive_since: Instant,
}

/// A WebSocket that counts until this is dropped.
pub(crate) struct ActiveConnection(Activity);

/// What `/status` says, as that of `stateroom serve` 0.2.9 does.
#[derive(Serialize)]
pub(super) struct Status {
    active_connections: usize,
    /// 0 while there are connections.
    seconds_inactive: u64,
    /// Whether new clients are accepted.
    listening: bool,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            connections: 0,
            inactive_since: Instant::now(),
        })))
    }
}

impl Activity {
    pub(super) fn begin(&self) -> ActiveConnection {
        self.lock().connections += 1;
        ActiveConnection(self.clone())
    }

    pub(super) fn status(&self, listening: bool) -> Status {
        let state = self.lock();
        Status {
            active_connections: state.connections,
            seconds_inactive: match state.connections {
                0 => state.inactive_since.elapsed().as_secs(),
                _ => 0,
            },
            listening,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.connections -= 1;
        state.inactive_since = Instant::now();
    }
}
