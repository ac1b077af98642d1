//! The end of a shard's log, as its owner writes it.

use crate::shard::{Epoch, NodeId};

/// Names a record of a shard's log; stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// Who wrote it.
    pub node: NodeId,
    /// As owner of this epoch.
    pub epoch: Epoch,
    /// Counts the owner's records in this epoch. The first, 0, says that the epoch has begun.
    pub number: u64,
}

/// The last record of a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Its sequence number in the stream.
    pub sequence: u64,
    /// Its name.
    pub id: RecordId,
    /// From which record on, itself included, the log is needed; none if nobody needs anything of it.
    pub needed: Option<u64>,
}

/// Appends records to a shard's log, one at a time, as long as nobody else does.
///
/// Drive it by this loop: while it [is idle](Self::is_idle), [`append`](Self::append) the next record; do
/// what [`poll`](Self::poll) returns, and pass the result to [`handle_last`](Self::handle_last) or
/// [`handle_appended`](Self::handle_appended).
///
/// The log must refuse a record if the last one has another sequence number than expected. A request that
/// was not answered may still take effect, at any time.
#[derive(Debug)]
pub struct Appender<P> {
    node: NodeId,
    epoch: Epoch,
    /// The sequence number of the last record that is known; of another owner until the first was appended.
    last: u64,
    /// From which record on what the owners before have left is needed.
    left: Option<u64>,
    /// The record that is being appended, and its number. None is the record by which the epoch begins.
    in_flight: Option<(u64, Option<P>)>,
    /// The number of the next record.
    next_number: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The last record must be read.
    MustRead,
    MustAppend,
    /// A request is under way.
    Waiting,
    Idle,
    Fenced,
}

/// What is to be done with the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a, P> {
    /// Read the last record. An answer may be out of date.
    ReadLast,
    /// Append a record if the last one is the expected one.
    Append {
        /// The sequence number of the last record of the shard; 0 if there must be none.
        expected: u64,
        /// The record's name.
        id: RecordId,
        /// What is in it; none in the record by which the epoch begins.
        payload: Option<&'a P>,
    },
}

/// What became of a request to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The record is durable, with this sequence number.
    Done(u64),
    /// The last record is not the expected one. This may be wrong: the log is asked for what is last.
    WrongSequence,
    /// It was refused for what is in it, or not answered while others are. An earlier request for the same record
    /// may have stored it all the same.
    Refused,
    /// It was not answered, or by an error that tells nothing.
    Unknown,
}

impl<P> Appender<P> {
    /// Begins an epoch.
    #[must_use]
    pub const fn new(node: NodeId, epoch: Epoch) -> Self {
        Self {
            node,
            epoch,
            last: 0,
            left: None,
            in_flight: Some((0, None)),
            next_number: 1,
            phase: Phase::MustRead,
        }
    }

    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sequence number of the last record that is known.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// From which record on what the owners before have left is needed, if something is.
    #[must_use]
    pub const fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether the epoch has begun and nothing is being appended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether there is another owner: nothing more is appended, and what was being appended never will be.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.phase == Phase::Fenced
    }

    /// Appends a record.
    ///
    /// # Panics
    ///
    /// If it is not idle.
    pub fn append(&mut self, payload: P) {
        assert!(self.is_idle(), "a record is being appended");
        self.in_flight = Some((self.next_number, Some(payload)));
        self.next_number += 1;
        self.phase = Phase::MustAppend;
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Request<'_, P>> {
        let (number, payload) = self.in_flight.as_ref()?;
        let request = match self.phase {
            Phase::MustRead => Request::ReadLast,
            Phase::MustAppend => Request::Append {
                expected: self.last,
                id: RecordId {
                    node: self.node,
                    epoch: self.epoch,
                    number: *number,
                },
                payload: payload.as_ref(),
            },
            Phase::Waiting | Phase::Idle | Phase::Fenced => return None,
        };
        self.phase = Phase::Waiting;
        Some(request)
    }

    /// The last record was read, or could not be. Returns the record that is durable now, if one is: none
    /// is that by which the epoch begins.
    pub fn handle_last(&mut self, last: Result<Option<LastRecord>, ()>) -> Option<Option<P>> {
        if self.phase != Phase::Waiting {
            return None;
        }
        self.phase = Phase::MustRead;
        let last = last.ok()?;
        let (number, _) = self.in_flight.as_ref()?;
        let is_own = |id: RecordId| (id.node, id.epoch) == (self.node, self.epoch);
        match last {
            Some(LastRecord { sequence, id, .. }) if is_own(id) && id.number == *number => {
                return self.done(sequence);
            }
            // Before the epoch begins, the last record is another's; or this is out of date.
            Some(LastRecord {
                sequence,
                id,
                needed,
            }) if *number == 0 && id.epoch < self.epoch => {
                if sequence > self.last {
                    (self.last, self.left) = (sequence, needed);
                }
                self.phase = Phase::MustAppend;
            }
            None if *number == 0 => self.phase = Phase::MustAppend,
            // It is as before: the request was lost, or may still be on its way.
            Some(LastRecord { sequence, .. }) if sequence == self.last => {
                self.phase = Phase::MustAppend;
            }
            // Out of date.
            Some(LastRecord { sequence, .. }) if sequence < self.last => {}
            None => {}
            Some(_) => self.phase = Phase::Fenced,
        }
        None
    }

    /// A request to append was answered, or is not awaited any more. Returns the record that is durable
    /// now, if one is: none is that by which the epoch begins.
    pub fn handle_appended(&mut self, result: Appended) -> Option<Option<P>> {
        if self.phase != Phase::Waiting {
            return None;
        }
        match result {
            Appended::Done(sequence) => self.done(sequence),
            Appended::WrongSequence | Appended::Refused | Appended::Unknown => {
                self.phase = Phase::MustRead;
                None
            }
        }
    }

    /// What was being appended, when it is fenced.
    pub fn into_payload(self) -> Option<P> {
        self.in_flight.and_then(|(_, payload)| payload)
    }

    fn done(&mut self, sequence: u64) -> Option<Option<P>> {
        self.last = sequence;
        self.phase = Phase::Idle;
        self.in_flight.take().map(|(_, payload)| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn record(node: u64, epoch: u64, number: u64, sequence: u64) -> LastRecord {
        let id = RecordId {
            node: NodeId(node),
            epoch: Epoch(epoch),
            number,
        };
        LastRecord {
            sequence,
            id,
            needed: None,
        }
    }

    /// One that has begun its epoch, 5, with the record 10.
    fn begun() -> Appender<&'static str> {
        let mut log = Appender::new(ME, Epoch(5));
        assert_eq!(log.poll(), Some(Request::ReadLast));
        assert_eq!(log.poll(), None);
        assert_eq!(log.handle_last(Ok(Some(record(2, 4, 7, 9)))), None);
        assert!(matches!(
            log.poll(),
            Some(Request::Append {
                expected: 9,
                payload: None,
                ..
            })
        ));
        assert_eq!(log.handle_appended(Appended::Done(10)), Some(None));
        assert!(log.is_idle());
        log
    }

    #[test]
    fn a_record_whose_answer_was_lost_is_found() {
        let mut log = begun();
        log.append("a");
        assert!(matches!(
            log.poll(),
            Some(Request::Append { expected: 10, .. })
        ));
        assert_eq!(log.handle_appended(Appended::Unknown), None);
        assert_eq!(log.poll(), Some(Request::ReadLast));
        // Out of date: the record by which the epoch began, whose request is sent again.
        assert_eq!(log.handle_last(Ok(Some(record(1, 5, 0, 10)))), None);
        assert!(matches!(
            log.poll(),
            Some(Request::Append { expected: 10, .. })
        ));
        assert_eq!(log.handle_appended(Appended::WrongSequence), None);
        assert_eq!(log.poll(), Some(Request::ReadLast));
        let durable = log.handle_last(Ok(Some(record(1, 5, 1, 12))));
        assert_eq!(durable, Some(Some("a")));
        assert_eq!(log.last(), 12);
    }

    #[test]
    fn the_record_of_another_owner_fences() {
        let mut log = begun();
        log.append("a");
        log.poll();
        log.handle_appended(Appended::WrongSequence);
        log.poll();
        assert_eq!(log.handle_last(Ok(Some(record(2, 6, 0, 11)))), None);
        assert!(log.is_fenced());
        assert_eq!(log.poll(), None);
        assert_eq!(log.into_payload(), Some("a"));
    }

    #[test]
    fn an_epoch_does_not_begin_after_a_later_one() {
        let mut log = Appender::<()>::new(ME, Epoch(5));
        log.poll();
        log.handle_last(Ok(Some(record(2, 6, 3, 9))));
        assert!(log.is_fenced());
    }

    #[test]
    fn a_late_replica_does_not_hide_records_of_the_owner_before() {
        let mut log = Appender::<()>::new(ME, Epoch(5));
        let last = |sequence, needed| LastRecord {
            needed,
            ..record(2, 4, 7, sequence)
        };
        log.poll();
        log.handle_last(Ok(Some(last(7, Some(6)))));
        log.poll();
        log.handle_appended(Appended::Unknown);
        for stale in [Some(last(5, None)), None] {
            log.poll();
            log.handle_last(Ok(stale));
            let request = log.poll();
            assert!(matches!(request, Some(Request::Append { expected: 7, .. })));
            log.handle_appended(Appended::WrongSequence);
        }
        assert_eq!(log.left(), Some(6));
    }

    #[test]
    fn an_answer_that_comes_twice_is_ignored() {
        let mut log = begun();
        assert_eq!(log.handle_appended(Appended::Done(99)), None);
        assert_eq!(log.handle_last(Ok(None)), None);
        assert_eq!(log.last(), 10);
    }
}
