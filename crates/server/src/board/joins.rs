//! Connects that the board has not answered, and whose they are.

use core::time::Duration;
use hashbrown::HashMap;
use stateroom_wasmi_host::{ClientId, RoomKey};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Connects that the board has not answered.
///
/// A client that comes back with its token has the id that it had, and so several connects of one id may
/// be unanswered. The board answers them in order, so that its next answer is about the oldest.
#[derive(Debug, Default)]
pub(super) struct Joins {
    /// Those of clients that are here, at most one of each, by deadline.
    pending: VecDeque<PendingJoin>,
    /// How many there are of clients that have left since.
    abandoned: HashMap<(RoomKey, ClientId), u32>,
}

#[derive(Debug)]
struct PendingJoin {
    room: RoomKey,
    client: ClientId,
    deadline: Instant,
    /// Whether an answer has come that was taken for that of an abandoned connect.
    was_preceded: bool,
}

/// Whose connect the board has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// That of the client that is here.
    Pending,
    /// That of a client that has left.
    Abandoned,
    /// Nobody's: there is no such connect.
    Nobody,
}

/// Time for the board to answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients that are kept in `abandoned`. A board that never answers would add to it without end.
const MAX_ABANDONED: usize = 4096;

impl Joins {
    /// A connect is on its way.
    pub(super) fn start(&mut self, room: RoomKey, client: ClientId, now: Instant) {
        self.pending.push_back(PendingJoin {
            room,
            client,
            deadline: now + JOIN_TIMEOUT,
            was_preceded: false,
        });
    }

    pub(super) fn is_pending(&self, room: RoomKey, client: ClientId) -> bool {
        self.position(room, client).is_some()
    }

    /// The board has answered a connect.
    pub(super) fn answer(&mut self, room: RoomKey, client: ClientId) -> Answered {
        let pending = self.position(room, client);
        if let Some(count) = self.abandoned.get_mut(&(room, client)) {
            *count -= 1;
            if *count == 0 {
                self.abandoned.remove(&(room, client));
            }
            if let Some(join) = pending.and_then(|index| self.pending.get_mut(index)) {
                join.was_preceded = true;
            }
            return Answered::Abandoned;
        }
        match pending.and_then(|index| self.pending.remove(index)) {
            Some(_) => Answered::Pending,
            None => Answered::Nobody,
        }
    }

    /// A client has left, whose connect may be unanswered.
    pub(super) fn abandon(&mut self, room: RoomKey, client: ClientId) {
        if let Some(index) = self.position(room, client) {
            self.pending.remove(index);
            self.expect_late_answer(room, client);
        }
    }

    /// Removes a join that the board should have answered by now and returns whose it is; or else
    /// returns when to call this again.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(RoomKey, ClientId), Option<Instant>> {
        let join = match self.pending.front() {
            None => return Err(None),
            Some(join) if join.deadline > now => return Err(Some(join.deadline)),
            Some(_) => self.pending.pop_front().ok_or(None)?,
        };
        let (room, client) = (join.room, join.client);
        // A board that has left out an answer would else be one behind with this client for ever.
        if !join.was_preceded {
            self.expect_late_answer(room, client);
        }
        Ok((room, client))
    }

    /// Forgets the connects of a room, which the board will not answer.
    pub(super) fn remove_room(&mut self, room: RoomKey) {
        self.pending.retain(|join| join.room != room);
        self.abandoned.retain(|(of, _), _| *of != room);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn position(&self, room: RoomKey, client: ClientId) -> Option<usize> {
        self.pending
            .iter()
            .position(|join| (join.room, join.client) == (room, client))
    }

    fn expect_late_answer(&mut self, room: RoomKey, client: ClientId) {
        // Then an answer may be taken for a newer connect of the same client. That does no harm but let
        // it in early.
        if self.abandoned.len() >= MAX_ABANDONED {
            self.abandoned.clear();
        }
        *self.abandoned.entry((room, client)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId(1);

    fn room() -> RoomKey {
        RoomKey::from_bits(7)
    }

    fn start(joins: &mut Joins) {
        joins.start(room(), CLIENT, Instant::now());
    }

    fn expire(joins: &mut Joins) {
        let expired = joins.expire(Instant::now() + JOIN_TIMEOUT);
        assert_eq!(expired, Ok((room(), CLIENT)));
    }

    #[test]
    fn late_answers_are_not_taken_for_those_of_newer_connects() {
        for leave in [expire, |joins: &mut Joins| joins.abandon(room(), CLIENT)] {
            let mut joins = Joins::default();
            for _ in 0..2 {
                start(&mut joins);
                leave(&mut joins);
            }
            start(&mut joins);
            assert_eq!(joins.answer(room(), CLIENT), Answered::Abandoned);
            assert_eq!(joins.answer(room(), CLIENT), Answered::Abandoned);
            assert!(joins.is_pending(room(), CLIENT));
            assert_eq!(joins.answer(room(), CLIENT), Answered::Pending);
            assert_eq!(joins.answer(room(), CLIENT), Answered::Nobody);
        }
    }

    #[test]
    fn answers_about_others_change_nothing() {
        let mut joins = Joins::default();
        start(&mut joins);
        assert_eq!(joins.answer(room(), ClientId(2)), Answered::Nobody);
        let other = RoomKey::from_bits(8);
        assert_eq!(joins.answer(other, CLIENT), Answered::Nobody);
        assert_eq!(joins.answer(room(), CLIENT), Answered::Pending);
    }

    #[test]
    fn an_answer_that_never_comes_costs_one_join() {
        let mut joins = Joins::default();
        start(&mut joins);
        expire(&mut joins);
        // The board answers each connect from here on.
        start(&mut joins);
        assert_eq!(joins.answer(room(), CLIENT), Answered::Abandoned);
        expire(&mut joins);
        start(&mut joins);
        assert_eq!(joins.answer(room(), CLIENT), Answered::Pending);
    }

    #[test]
    fn joins_expire_in_order() {
        let mut joins = Joins::default();
        let now = Instant::now();
        assert_eq!(joins.expire(now), Err(None));
        let second = now + Duration::from_secs(1);
        joins.start(room(), CLIENT, now);
        joins.start(room(), ClientId(2), second);
        assert_eq!(joins.expire(second), Err(Some(now + JOIN_TIMEOUT)));
        assert_eq!(joins.expire(now + JOIN_TIMEOUT), Ok((room(), CLIENT)));
        assert_eq!(
            joins.expire(now + JOIN_TIMEOUT),
            Err(Some(second + JOIN_TIMEOUT))
        );
    }

    #[test]
    fn connects_that_are_never_answered_are_bounded() {
        let mut joins = Joins::default();
        for client in 0..100_000 {
            joins.start(room(), ClientId(client), Instant::now());
            joins.abandon(room(), ClientId(client));
        }
        assert!(joins.pending.is_empty());
        assert!(joins.abandoned.len() <= MAX_ABANDONED);
        joins.remove_room(room());
        assert!(joins.abandoned.is_empty());
    }
}
