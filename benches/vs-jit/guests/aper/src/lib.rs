//! A kitchen timer that everybody in the room sees, as a state machine of aper.
//!
//! An intent starts it, for so many milliseconds; when they have passed it rings, which is an event
//! that aper suspends, by the timer of its room. What clients are sent is aper's protocol.

use aper::{data_structures::atom::Atom, Aper, AperSync, Store};
use aper_stateroom::{AperStateroomService, IntentEvent, StateProgram, Timestamp};
use serde::{Deserialize, Serialize};
use stateroom_wasm::stateroom_wasm;

#[stateroom_wasm]
type Room = AperStateroomService<KitchenTimer>;

#[derive(AperSync)]
struct KitchenTimer {
    rings: Atom<u32>,
    /// When it rings next.
    due: Atom<Option<Timestamp>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Intent {
    Start { ms: i64 },
    Ring,
}

impl Aper for KitchenTimer {
    type Intent = IntentEvent<Intent>;
    type Error = ();

    fn apply(&mut self, event: &Self::Intent) -> Result<(), ()> {
        match event.intent {
            Intent::Start { ms } => {
                let time = std::time::Duration::from_millis(ms.try_into().map_err(|_| ())?);
                self.due.set(Some(event.timestamp + time));
            }
            Intent::Ring => {
                self.rings.set(self.rings.get() + 1);
                self.due.set(None);
            }
        }
        Ok(())
    }
}

impl StateProgram for KitchenTimer {
    type T = Intent;

    fn new() -> Self {
        Self::attach(Store::default().handle())
    }

    fn suspended_event(&self) -> Option<IntentEvent<Intent>> {
        let due = self.due.get()?;
        Some(IntentEvent::new(None, due, Intent::Ring))
    }
}
