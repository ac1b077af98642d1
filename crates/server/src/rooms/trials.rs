//! Clients at whose messages nodes have ended.
//!
//! A gateway sends what was not acknowledged again to the room's next node. If that is what ended the one before,
//! it goes from node to node. So gateways count, and say so to the next node. From the second time on it lets such
//! clients go on one after the other, so that the third tells which it was.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// What a gateway says of a client to the next node of its room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// Nodes in a row that have ended while they had messages of the client, of which they had acknowledged none.
    pub(crate) deaths: u32,
    /// How many messages the client has sent.
    pub(crate) messages: u64,
}

impl Suspicion {
    /// Whether the room is not to have the client's messages again, and is in quarantine.
    pub(crate) const fn is_proved(self) -> bool {
        self.deaths >= MAX_DEATHS
    }
}

/// Less could be coincidence, where something ends nodes again and again.
pub(crate) const MAX_DEATHS: u32 = 3;

/// Lets suspects go on one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Trials {
    turns: Arc<Semaphore>,
    settling: Duration,
}

/// A suspect that has gone on. As long as that lasts, each of its messages is acknowledged at once, since that is
/// what clears it; and of those who must be alone no other one goes on.
#[derive(Debug)]
pub(crate) struct Trial {
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// The messages that it is about: when so many are handled, it ends.
    messages: u64,
}

/// Time for which those must wait who are to be alone. Where something else ends nodes quickly one after the other,
/// none of them comes to its turn, and so none is blamed.
const SETTLING: Duration = Duration::from_secs(3);

/// Time after which the next one goes on in any case: whatever ends a process at once has done so.
const TIMEOUT: Duration = Duration::from_millis(200);

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(1)),
            settling: SETTLING,
        }
    }

    /// Waits until a client may go on; one that is no suspect need not.
    pub(crate) async fn begin(&self, suspicion: Suspicion) -> Option<Trial> {
        let Suspicion { deaths, messages } = suspicion;
        if deaths == 0 || suspicion.is_proved() {
            return None;
        }
        let permit = match deaths {
            1 => None,
            _ => {
                sleep(self.settling).await;
                Some(self.turns.clone().acquire_owned().await.ok()?)
            }
        };
        let is_alone = permit.is_some();
        let permit = Arc::new(Mutex::new(permit));
        let shared = permit.clone();
        if is_alone {
            tokio::spawn(async move {
                sleep(TIMEOUT).await;
                end(&shared);
            });
        }
        Some(Trial { permit, messages })
    }
}

impl Trial {
    /// Whether the room has handled all that it is about, if it has handled so many messages.
    pub(crate) const fn is_over(&self, handled: u64) -> bool {
        handled >= self.messages
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        end(&self.permit);
    }
}

fn end(permit: &Mutex<Option<OwnedSemaphorePermit>>) {
    let mut permit = permit.lock().unwrap_or_else(PoisonError::into_inner);
    drop(permit.take());
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn suspects_go_on_one_after_the_other() {
        let trials = Trials {
            settling: Duration::ZERO,
            ..Trials::new()
        };
        let suspicion = |deaths| Suspicion {
            deaths,
            messages: 2,
        };
        for deaths in [0, MAX_DEATHS] {
            assert!(trials.begin(suspicion(deaths)).await.is_none());
        }
        let first = trials.begin(suspicion(2)).await.expect("a suspect");
        assert!(!first.is_over(1) && first.is_over(2));
        let mut second = Box::pin(trials.begin(suspicion(2)));
        assert!((&mut second).now_or_never().is_none());
        // One that is no suspect to be alone need not wait.
        assert!(trials.begin(suspicion(1)).await.is_some());
        drop(first);
        let second = second.await.expect("a suspect");
        drop(second);
        // One of which nothing is heard does not keep the others for ever.
        let _silent = trials.begin(suspicion(2)).await;
        assert!(trials.begin(suspicion(2)).await.is_some());
    }
}
