//! Clock: counts seconds while clients are connected.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | the first client connects | the clock starts at zero | |
//! | a second has passed | `tick 1`, then `tick 2`, and so on | everybody |
//! | the last client disconnects | the clock stops | |
//! | a text or a binary message | nothing | |

use std::collections::BTreeSet;

use stateroom_wasm::*;

const SECOND_MS: u32 = 1000;

/// Fires the timer at once, for the last time: a room without clients costs nothing.
const AT_ONCE_MS: u32 = 0;

#[stateroom_wasm]
#[derive(Default)]
struct Clock {
    watching: BTreeSet<ClientId>,
    ticks: u64,
}

impl StateroomService for Clock {
    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        if self.arrive(client) {
            context.set_timer(SECOND_MS);
        }
    }

    fn disconnect(&mut self, client: ClientId, context: &impl StateroomContext) {
        if self.leave(client) {
            context.set_timer(AT_ONCE_MS);
        }
    }

    fn timer(&mut self, context: &impl StateroomContext) {
        if let Some(news) = self.tick() {
            context.send_message(MessageRecipient::Broadcast, news);
            // A timer fires once, so it is set again for the next tick.
            context.set_timer(SECOND_MS);
        }
    }
}

impl Clock {
    /// Returns whether this was the first client, so that the clock has to be started.
    fn arrive(&mut self, client: ClientId) -> bool {
        let first = self.watching.is_empty();
        self.watching.insert(client);
        if first {
            self.ticks = 0;
        }
        first
    }

    /// Returns whether this was the last client, so that the clock has to be stopped.
    fn leave(&mut self, client: ClientId) -> bool {
        // Unknown clients are ignored, so they cannot cancel the timer.
        self.watching.remove(&client) && self.watching.is_empty()
    }

    /// Counts one more second and returns the text for everybody.
    fn tick(&mut self) -> Option<String> {
        // A timer cannot be cancelled: zero fires it at once, so one more tick follows the last
        // disconnect.
        if self.watching.is_empty() {
            return None;
        }
        self.ticks = self.ticks.saturating_add(1);
        Some(format!("tick {}", self.ticks))
    }
}
