//! Clock: counts seconds while clients are connected.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | the first client connects | the clock starts at zero | |
//! | a second has passed | `tick 1`, then `tick 2`, and so on | everybody |
//! | the last client disconnects | the clock stops | |
//! | a text or a binary message | nothing | |

#![no_std]

use stateroom_small::{room, send_text, set_timer, Room, Text, EVERYBODY};

const SECOND_MS: u32 = 1000;
const NEVER_MS: u32 = 0;

struct Clock {
    watching: u32,
    ticks: u32,
}

room!(Clock);

impl Room for Clock {
    const NEW: Self = Clock {
        watching: 0,
        ticks: 0,
    };

    fn connect(&mut self, _client: i32) {
        self.watching += 1;
        if self.watching == 1 {
            self.ticks = 0;
            set_timer(SECOND_MS);
        }
    }

    fn disconnect(&mut self, _client: i32) {
        self.watching = self.watching.saturating_sub(1);
        if self.watching == 0 {
            set_timer(NEVER_MS);
        }
    }

    fn timer(&mut self) {
        // Some hosts fire a timer of zero at once instead of cancelling it.
        if self.watching > 0 {
            self.ticks = self.ticks.saturating_add(1);
            send_text(
                EVERYBODY,
                Text::<16>::new()
                    .push("tick ")
                    .push_number(self.ticks)
                    .as_str(),
            );
            set_timer(SECOND_MS);
        }
    }
}
