//! Clients at whose messages nodes have ended.
//!
//! A gateway sends what was not acknowledged again to the room's next node. If that is what ended the one before,
//! it goes from node to node. So gateways count, and say so to the next node. From the second time on it lets such
//! clients go on one after the other, so that the third tells which it was.

use super::Claim;
use core::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::sync::Arc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
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

    /// Whether the client is to go on while no other one does of which that is so.
    pub(crate) const fn must_be_alone(self) -> bool {
        self.deaths + 1 >= MAX_DEATHS && !self.is_proved()
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
/// what clears it.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The messages that it is about: when so many are handled, it ends.
    messages: u64,
    /// Whether that is so, though the client may not have been told yet.
    is_over: bool,
    turn: Option<Turn>,
}

/// Of a suspect that must be alone. No other one has it.
#[derive(Debug)]
struct Turn {
    _permit: OwnedSemaphorePermit,
    /// When the next one has it in any case.
    until: Instant,
    /// However often it goes on.
    at_most: Instant,
}

/// A suspect that waits for its turn, and joins its room then.
pub(crate) struct Waiting {
    room: Box<str>,
    claim: Claim,
    turn: Pin<Box<dyn Future<Output = OwnedSemaphorePermit>>>,
}

/// Time for which those must wait who are to be alone. Where something else ends nodes quickly one after the other,
/// none of them comes to its turn, and so none is blamed.
const SETTLING: Duration = Duration::from_secs(3);

/// Time after which the next one goes on in any case: whatever ends a process at once has done so.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The same for one whose room was open when it began to wait, and must be loaded again.
const LOADING: Duration = Duration::from_secs(5);

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(1)),
            settling: SETTLING,
        }
    }

    /// What a client waits for that must be alone in its room of this id, which is open.
    pub(crate) fn wait(&self, room: &str, claim: &Claim) -> Waiting {
        let (turns, settling) = (self.turns.clone(), self.settling);
        Waiting {
            room: room.into(),
            claim: claim.clone(),
            turn: Box::pin(async move {
                sleep(settling).await;
                match turns.acquire_owned().await {
                    Ok(permit) => permit,
                    // It is never closed.
                    Err(_) => pending().await,
                }
            }),
        }
    }
}

impl Waiting {
    /// The client's turn, and what it joins then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Trial, Box<str>, Claim)> {
        self.turn.as_mut().poll(cx).map(|permit| {
            let mut trial = Trial::new(self.claim.suspicion);
            let until = Instant::now() + LOADING;
            trial.turn = Some(Turn {
                _permit: permit,
                until,
                at_most: until,
            });
            (
                trial,
                core::mem::take(&mut self.room),
                core::mem::take(&mut self.claim),
            )
        })
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Trial {
    pub(crate) const fn new(suspicion: Suspicion) -> Self {
        Self {
            messages: suspicion.messages,
            is_over: false,
            turn: None,
        }
    }

    pub(crate) const fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// The room lets the client go on: what it sends comes now.
    pub(crate) fn go_on(&mut self, now: Instant) {
        if let Some(turn) = &mut self.turn {
            turn.until = turn.at_most.min(now + TIMEOUT);
        }
    }

    /// Ends its turn if that has lasted too long; returns when that will be so.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.turn.take_if(|turn| turn.until <= now);
        self.turn.as_ref().map(|turn| turn.until)
    }

    /// The room has handled so many messages of the client. The trial is over when that is all that it is about,
    /// and the client is told: before, it would be blamed if the next one ended the process.
    pub(crate) const fn handled(&mut self, messages: u64) {
        self.is_over |= messages >= self.messages;
    }

    /// Whether it ends when the client is told.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
impl Trials {
    /// Those who are to be alone wait so long first.
    pub(crate) fn after(settling: Duration) -> Self {
        Self {
            settling,
            ..Self::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use futures_util::FutureExt;

    fn claim(deaths: u32) -> Claim {
        Claim {
            suspicion: Suspicion {
                deaths,
                messages: 2,
            },
            ..Claim::default()
        }
    }

    #[test]
    fn only_who_is_nearly_convicted_must_be_alone() {
        let alone = |deaths| claim(deaths).suspicion.must_be_alone();
        let all: Vec<_> = (0..=MAX_DEATHS).map(alone).collect();
        assert_eq!(all, [false, false, true, false]);
    }

    #[tokio::test]
    async fn suspects_go_on_one_after_the_other() {
        let trials = Trials::after(Duration::ZERO);
        let turn = || {
            let mut waiting = trials.wait("lobby", &claim(2));
            Box::pin(poll_fn(move |cx| waiting.poll(cx)))
        };
        let (mut first, room, claim) = turn().await;
        assert_eq!((&*room, claim.suspicion.deaths), ("lobby", 2));
        first.handled(1);
        assert!(!first.is_over());
        first.handled(2);
        assert!(first.is_over());
        let mut given_up = turn();
        assert!((&mut given_up).now_or_never().is_none());
        let mut second = turn();
        assert!((&mut second).now_or_never().is_none());
        drop(given_up);
        drop(first);
        let (mut second, ..) = second.await;
        // As long as it has not gone on, nothing of what it sends can have been handled.
        let now = Instant::now();
        let until = second.handle_timeout(now + TIMEOUT);
        assert!(until.is_some_and(|until| until > now + TIMEOUT));
        second.go_on(now);
        assert_eq!(second.handle_timeout(now), Some(now + TIMEOUT));
        let mut third = turn();
        assert!((&mut third).now_or_never().is_none());
        // One of which nothing is heard does not keep the others for ever, nor one to whom something is always held.
        second.go_on(now + 2 * LOADING);
        assert_eq!(second.handle_timeout(now + 2 * LOADING), None);
        assert!(!second.has_turn());
        third.await;
    }
}
