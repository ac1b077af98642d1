//! Rooms of a board that are saved, loaded or moved for operators, one at a time.

use crate::{
    journal::RoomFile,
    rooms::{AdminError, Reply, TransferReply, file_of},
};
use core::time::Duration;
use stateroom_wasmi_host::{Escaped, SnapshotInfo, WithSources};
use stateroom_wasmi_link::{Bridge, IncomingSnapshot, TransferReason};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Time in which something of a transfer has to come, or to leave.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest snapshot that is taken of a board: more than any has memory for.
const MAX_SNAPSHOT_BYTES: usize = 16 << 20;

/// Characters of a board's reason that are kept.
const MAX_REASON_CHARS: usize = 300;

/// Transfers between the board and operators.
#[derive(Default)]
pub(super) struct Transfers {
    /// The longest snapshot that the board loads; none if it does not take part in any.
    max_snapshot_bytes: Option<usize>,
    current: Option<Transfer>,
    /// What the board is to be told about rooms that it holds, by their numbers: whether they have moved.
    releases: VecDeque<(u8, bool)>,
    /// The last room that has moved, with its checksum and what its clients are told, until the board has
    /// closed it.
    moved: Option<(Box<str>, u32, String)>,
    /// The last room that has arrived and may go on.
    arrived: Option<Box<str>>,
    last_hold: u64,
    /// Whether the board is to be told that no more of a snapshot comes.
    cancels_load: bool,
}

struct Transfer {
    id: Box<str>,
    deadline: Instant,
    task: Task,
}

enum Task {
    Save {
        /// Whether the board was asked in this session.
        is_asked: bool,
        incoming: Option<IncomingSnapshot>,
        purpose: Purpose,
    },
    /// On its way elsewhere, with this checksum. Whoever has the number is to decide.
    Leaving { number: u64, checksum: u32 },
    Load {
        snapshot: Vec<u8>,
        progress: Progress,
        was_interrupted: bool,
        /// How long the room waits for the other server to give it up; none if it goes on at once.
        hold: Option<Duration>,
        reply: TransferReply,
    },
    /// From elsewhere. Whoever has the number is to decide.
    Arriving { number: u64 },
}

/// What a room is saved for.
enum Purpose {
    Copy(Reply<Vec<u8>>),
    /// To go elsewhere, within this time.
    Leave(Duration, Reply<(u64, Vec<u8>)>),
}

impl Purpose {
    const fn holds(&self) -> bool {
        matches!(self, Self::Leave(..))
    }

    fn refuse(self, error: AdminError) {
        match self {
            Self::Copy(reply) => reply(Err(error)),
            Self::Leave(_, reply) => reply(Err(error)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    ToAsk,
    Asked,
    /// Up to here.
    Sent(usize),
}

/// What a board has, for those who look up a room.
pub(super) trait Numbers {
    fn number_of(&self, id: &str) -> Option<u8>;
    fn id_of(&self, number: u8) -> Option<&str>;
}

impl Transfers {
    pub(super) fn begin_save(&mut self, id: &str, reply: Reply<Vec<u8>>) {
        self.begin_save_for(id, Purpose::Copy(reply));
    }

    pub(super) fn begin_hold(&mut self, id: &str, time: Duration, reply: Reply<(u64, Vec<u8>)>) {
        self.begin_save_for(id, Purpose::Leave(time, reply));
    }

    fn begin_save_for(&mut self, id: &str, purpose: Purpose) {
        match self.check_free() {
            Err(error) => purpose.refuse(error),
            Ok(_) => self.begin(
                id,
                Task::Save {
                    is_asked: false,
                    incoming: None,
                    purpose,
                },
            ),
        }
    }

    pub(super) fn begin_load(
        &mut self,
        file: RoomFile,
        hold: Option<Duration>,
        reply: TransferReply,
    ) {
        let checked = self.check_free().and_then(|longest| {
            let snapshot = &file.snapshot.room;
            let bytes = snapshot.len();
            if bytes > longest {
                let why = format!("it has {bytes} bytes, and the board takes {longest}");
                return Err(AdminError::Unreadable(why));
            }
            if !file.tail.is_empty() {
                let why = "it has events since its snapshot, which a board does not replay";
                return Err(AdminError::Unreadable(why.into()));
            }
            check_id(snapshot, &file.id).map_err(AdminError::Unreadable)
        });
        match checked {
            Err(error) => reply(Err(error)),
            Ok(()) => self.begin(
                &file.id,
                Task::Load {
                    snapshot: file.snapshot.room,
                    progress: Progress::ToAsk,
                    was_interrupted: false,
                    hold,
                    reply,
                },
            ),
        }
    }

    fn begin(&mut self, id: &str, task: Task) {
        self.current = Some(Transfer {
            id: id.into(),
            deadline: Instant::now() + PROGRESS_TIMEOUT,
            task,
        });
    }

    /// The longest snapshot, if a transfer can begin.
    fn check_free(&self) -> Result<usize, AdminError> {
        let longest = self
            .max_snapshot_bytes
            .ok_or_else(|| refused("the board is not connected, or saves and loads no rooms"))?;
        match self.current {
            None => Ok(longest),
            Some(_) => Err(refused("another room is on its way")),
        }
    }

    /// Lets a room go on that is held by this number.
    pub(super) fn end_hold(
        &mut self,
        id: &str,
        hold: u64,
        rooms: &impl Numbers,
    ) -> Result<u64, AdminError> {
        match self.held_by(id, hold)? {
            Task::Arriving { .. } => self.arrived = Some(id.into()),
            _ => self.arrived = None,
        }
        self.release(id, false, rooms);
        Ok(hold)
    }

    /// Gives up a room that is held by this number, and has gone elsewhere.
    pub(super) fn give_up(
        &mut self,
        id: &str,
        hold: u64,
        location: Option<&str>,
        rooms: &impl Numbers,
    ) -> Result<u64, AdminError> {
        let Task::Leaving { checksum, .. } = *self.held_by(id, hold)? else {
            return Err(AdminError::NotHeld);
        };
        let reason = match location {
            Some(location) => format!("moved to {location}"),
            None => "the room has moved to another server".into(),
        };
        self.moved = Some((id.into(), checksum, reason));
        self.release(id, true, rooms);
        Ok(hold)
    }

    fn held_by(&self, id: &str, hold: u64) -> Result<&Task, AdminError> {
        let held = self.current.as_ref().filter(|transfer| *transfer.id == *id);
        match held.map(|transfer| &transfer.task) {
            Some(task @ (Task::Leaving { number, .. } | Task::Arriving { number }))
                if *number == hold =>
            {
                Ok(task)
            }
            _ => Err(AdminError::NotHeld),
        }
    }

    /// Ends a hold. A board that is not there says that it holds the room when it is there again.
    fn release(&mut self, id: &str, is_removed: bool, rooms: &impl Numbers) {
        self.current = None;
        if let Some(number) = rooms.number_of(id) {
            self.releases.push_back((number, is_removed));
        }
    }

    /// The room whose events wait.
    pub(super) fn held_room(&self) -> Option<&str> {
        let transfer = self.current.as_ref()?;
        let is_held = match &transfer.task {
            Task::Save {
                purpose, is_asked, ..
            } => purpose.holds() && *is_asked,
            Task::Leaving { .. } | Task::Arriving { .. } => true,
            Task::Load { hold, .. } => hold.is_some(),
        };
        is_held.then_some(&*transfer.id)
    }

    /// What the clients of a room are told that the board has closed, if it has moved.
    pub(super) fn take_moved(&mut self, id: &str) -> Option<String> {
        let (_, _, reason) = self.moved.take_if(|(moved, ..)| **moved == *id)?;
        Some(reason)
    }

    /// The board has closed a room, which so will not be saved.
    pub(super) fn on_room_closed(&mut self, id: &str, rooms: &impl Numbers) {
        let is_saved = self.current.as_ref().is_some_and(|transfer| {
            *transfer.id == *id && !matches!(transfer.task, Task::Load { .. })
        });
        if is_saved {
            self.fail(AdminError::UnknownRoom, rooms);
        }
    }

    /// Sends the board what there is to send, as far as the bridge takes it.
    pub(super) fn advance(&mut self, bridge: &mut Bridge, rooms: &impl Numbers) {
        while let Some((number, has_moved)) = self.releases.front() {
            if bridge.release(*number, *has_moved).is_err() {
                return;
            }
            self.releases.pop_front();
        }
        if self.cancels_load && bridge.cancel_load().is_ok() {
            self.cancels_load = false;
        }
        // Nothing before the board says that it takes part.
        if self.max_snapshot_bytes.is_none() {
            return;
        }
        let Some(transfer) = &mut self.current else {
            return;
        };
        match &mut transfer.task {
            Task::Save {
                is_asked,
                incoming,
                purpose,
            } if !*is_asked => {
                let Some(number) = rooms.number_of(&transfer.id) else {
                    return self.fail(AdminError::UnknownRoom, rooms);
                };
                let received = |incoming: &IncomingSnapshot| {
                    let from = u32::try_from(incoming.received()).unwrap_or(0);
                    (from, incoming.checksum())
                };
                let resume = incoming.as_ref().map(received);
                *is_asked = bridge.save(number, purpose.holds(), resume).is_ok();
            }
            Task::Load {
                snapshot,
                progress,
                hold,
                ..
            } => match progress {
                Progress::ToAsk => {
                    if bridge.load(snapshot, hold.is_some()).is_ok() {
                        *progress = Progress::Asked;
                    }
                }
                Progress::Asked => {}
                Progress::Sent(sent) => {
                    while *sent < snapshot.len() {
                        let Ok(next) = bridge.send_piece(snapshot, *sent) else {
                            break;
                        };
                        *sent = next;
                        transfer.deadline = Instant::now() + PROGRESS_TIMEOUT;
                    }
                }
            },
            Task::Save { .. } | Task::Leaving { .. } | Task::Arriving { .. } => {}
        }
    }

    /// The board saves and loads rooms.
    pub(super) fn on_available(&mut self, max_snapshot_bytes: usize) {
        self.max_snapshot_bytes = Some(max_snapshot_bytes.min(MAX_SNAPSHOT_BYTES));
    }

    /// The board has saved a room, or holds one since an earlier session.
    pub(super) fn on_saved(
        &mut self,
        number: u8,
        is_held: bool,
        length: u32,
        checksum: u32,
        rooms: &impl Numbers,
    ) {
        let Some(id) = rooms.id_of(number) else {
            return;
        };
        if let Some(transfer) = self.current.as_mut().filter(|transfer| *transfer.id == *id) {
            match &mut transfer.task {
                Task::Save {
                    is_asked: true,
                    incoming,
                    ..
                } => {
                    let length_bytes = usize::try_from(length).unwrap_or(usize::MAX);
                    if length_bytes > MAX_SNAPSHOT_BYTES {
                        return self.fail(refused("the board's snapshot is too long"), rooms);
                    }
                    let is_rest = |incoming: &IncomingSnapshot| incoming.is(length, checksum);
                    if !incoming.as_ref().is_some_and(is_rest) {
                        *incoming = Some(IncomingSnapshot::new(length_bytes, checksum));
                    }
                    transfer.deadline = Instant::now() + PROGRESS_TIMEOUT;
                    return self.finish_save(rooms);
                }
                // The rest is asked for next.
                Task::Save { .. } | Task::Leaving { .. } => return,
                Task::Load { .. } | Task::Arriving { .. } => {}
            }
        }
        if is_held && self.releases.len() < usize::from(u8::MAX) {
            let moved = self.moved.as_ref();
            let has_moved = moved.is_some_and(|moved| (&*moved.0, moved.1) == (id, checksum));
            self.releases.push_back((number, has_moved));
        }
    }

    pub(super) fn on_piece(&mut self, offset: u32, bytes: &[u8], rooms: &impl Numbers) {
        let Some(transfer) = &mut self.current else {
            return;
        };
        let Task::Save {
            is_asked: true,
            incoming: Some(incoming),
            ..
        } = &mut transfer.task
        else {
            return;
        };
        if let Err(error) = incoming.push(offset, bytes) {
            return self.fail(refused(error.to_string()), rooms);
        }
        if !bytes.is_empty() {
            transfer.deadline = Instant::now() + PROGRESS_TIMEOUT;
        }
        self.finish_save(rooms);
    }

    /// Replies with the snapshot, if all of it is there.
    fn finish_save(&mut self, rooms: &impl Numbers) {
        let is_complete = self.current.as_ref().is_some_and(|transfer| {
            matches!(&transfer.task, Task::Save { incoming: Some(incoming), .. } if incoming.is_complete())
        });
        let Some(mut transfer) = self.current.take_if(|_| is_complete) else {
            return;
        };
        let Task::Save {
            incoming: Some(incoming),
            purpose,
            ..
        } = transfer.task
        else {
            return;
        };
        let checksum = incoming.checksum();
        let bytes = incoming
            .into_bytes()
            .ok_or_else(|| "the board's snapshot is damaged".into());
        let checked = bytes.and_then(|bytes| check_id(&bytes, &transfer.id).map(|()| bytes));
        match (checked.map_err(AdminError::Unavailable), purpose) {
            (checked, Purpose::Copy(reply)) => reply(checked),
            (Ok(bytes), Purpose::Leave(time, reply)) => {
                self.last_hold += 1;
                let number = self.last_hold;
                transfer.task = Task::Leaving { number, checksum };
                transfer.deadline = Instant::now() + time;
                let file = file_of(&transfer.id, bytes).encode();
                self.current = Some(transfer);
                reply(Ok((number, file)));
            }
            (Err(error), Purpose::Leave(_, reply)) => {
                self.release(&transfer.id, false, rooms);
                reply(Err(error));
            }
        }
    }

    pub(super) fn on_load_ready(&mut self, from: u32, rooms: &impl Numbers) {
        let Some(transfer) = &mut self.current else {
            return;
        };
        let Task::Load {
            snapshot, progress, ..
        } = &mut transfer.task
        else {
            return;
        };
        if *progress != Progress::Asked {
            return;
        }
        match usize::try_from(from) {
            Ok(from) if from <= snapshot.len() => *progress = Progress::Sent(from),
            _ => self.fail(refused("the board asks for more than there is"), rooms),
        }
    }

    /// The board has loaded a room, or holds one since an earlier session that has come to it.
    pub(super) fn on_loaded(&mut self, number: u8, is_held: bool, rooms: &impl Numbers) {
        let Some(id) = rooms.id_of(number) else {
            return;
        };
        let current = self.current.as_ref().filter(|transfer| *transfer.id == *id);
        match current.map(|transfer| &transfer.task) {
            Some(Task::Load {
                snapshot,
                progress,
                hold,
                was_interrupted,
                ..
            }) => {
                let was_sent = *progress == Progress::Sent(snapshot.len()) || *was_interrupted;
                if was_sent && is_held == hold.is_some() {
                    self.end_load();
                }
            }
            Some(Task::Arriving { .. }) => {}
            // One that nobody knows of may be elsewhere, or is in the file of an operator.
            _ if is_held && self.releases.len() < usize::from(u8::MAX) => {
                let may_go_on = self.arrived.as_deref() == Some(id);
                self.releases.push_back((number, !may_go_on));
            }
            _ => {}
        }
    }

    /// The room has arrived.
    fn end_load(&mut self) {
        let Some(mut transfer) = self.current.take() else {
            return;
        };
        let Task::Load { hold, reply, .. } = transfer.task else {
            return;
        };
        self.last_hold += 1;
        let number = self.last_hold;
        if let Some(time) = hold {
            transfer.task = Task::Arriving { number };
            transfer.deadline = Instant::now() + time;
            self.current = Some(transfer);
        }
        reply(Ok(number));
    }

    pub(super) fn on_refused(&mut self, reason: TransferReason, text: &str, rooms: &impl Numbers) {
        let Some(transfer) = &self.current else {
            return;
        };
        let was_loaded = match &transfer.task {
            Task::Load {
                progress: Progress::ToAsk,
                ..
            }
            | Task::Save {
                is_asked: false, ..
            }
            | Task::Leaving { .. }
            | Task::Arriving { .. } => return,
            // It was loaded before the link was lost, and cannot be a second time.
            Task::Load {
                was_interrupted,
                hold: None,
                ..
            } => *was_interrupted && rooms.number_of(&transfer.id).is_some(),
            Task::Load { .. } | Task::Save { .. } => false,
        };
        if was_loaded {
            return self.end_load();
        }
        let text = Escaped::new(text).at_most(MAX_REASON_CHARS);
        let why = match text.to_string() {
            text if text.is_empty() => reason.to_string(),
            text => format!("{reason}: {text}"),
        };
        let error = match transfer.task {
            Task::Load { .. } => AdminError::Unreadable(why),
            _ => AdminError::Unavailable(why),
        };
        self.fail(error, rooms);
    }

    /// Ends the transfer with an error. A room that was to leave goes on, and one that was to arrive is
    /// dropped.
    fn fail(&mut self, error: AdminError, rooms: &impl Numbers) {
        let is_held = self.held_room().is_some();
        let Some(transfer) = self.current.take() else {
            return;
        };
        match transfer.task {
            Task::Save { purpose, .. } => {
                if is_held {
                    self.release(&transfer.id, false, rooms);
                }
                purpose.refuse(error);
            }
            Task::Load { reply, .. } => {
                self.cancels_load = true;
                reply(Err(error));
            }
            Task::Leaving { .. } => self.release(&transfer.id, false, rooms),
            Task::Arriving { .. } => self.release(&transfer.id, true, rooms),
        }
    }

    /// Ends a transfer of which nothing comes any more; returns when to call this again.
    pub(super) fn expire(&mut self, now: Instant, rooms: &impl Numbers) -> Option<Instant> {
        let deadline = self.current.as_ref()?.deadline;
        if deadline > now {
            return Some(deadline);
        }
        self.fail(refused("the board does not answer"), rooms);
        None
    }

    /// The session has ended. What was on its way goes on in the next one.
    pub(super) fn on_link_lost(&mut self) {
        self.max_snapshot_bytes = None;
        self.releases.clear();
        self.cancels_load = false;
        match self.current.as_mut().map(|transfer| &mut transfer.task) {
            Some(Task::Save { is_asked, .. }) => *is_asked = false,
            Some(Task::Load {
                progress,
                was_interrupted,
                ..
            }) => {
                *was_interrupted |= *progress != Progress::ToAsk;
                *progress = Progress::ToAsk;
            }
            Some(Task::Leaving { .. } | Task::Arriving { .. }) | None => {}
        }
    }

    /// The server ends.
    pub(super) fn stop(&mut self, rooms: &impl Numbers) {
        self.fail(refused("the server is stopping"), rooms);
    }
}

/// Whether a snapshot is one of the room that it is said to be of; or why not.
fn check_id(snapshot: &[u8], id: &str) -> Result<(), String> {
    match SnapshotInfo::read(snapshot) {
        Ok(info) if info.room_id == id => Ok(()),
        Ok(info) => {
            let id = Escaped::new(&info.room_id).at_most(MAX_REASON_CHARS);
            Err(format!("the snapshot is of the room {id:?}"))
        }
        Err(error) => Err(WithSources(&error).to_string()),
    }
}

fn refused(why: impl Into<String>) -> AdminError {
    AdminError::Unavailable(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver, TryRecvError};

    const HOLD: Duration = Duration::from_secs(60);

    /// A board with the room `r`, of number 3.
    struct OneRoom;

    impl Numbers for OneRoom {
        fn number_of(&self, id: &str) -> Option<u8> {
            (id == "r").then_some(3)
        }

        fn id_of(&self, number: u8) -> Option<&str> {
            (number == 3).then_some("r")
        }
    }

    fn available() -> Transfers {
        let mut transfers = Transfers::default();
        transfers.on_available(1000);
        transfers
    }

    /// A save that the board was asked for.
    fn asked(transfers: &mut Transfers, holds: bool) -> Receiver<Result<(), AdminError>> {
        let (sender, answer) = mpsc::channel();
        match holds {
            true => transfers.begin_hold(
                "r",
                HOLD,
                Box::new(move |saved| sender.send(saved.map(drop)).expect("it is waited for")),
            ),
            false => transfers.begin_save(
                "r",
                Box::new(move |saved| sender.send(saved.map(drop)).expect("it is waited for")),
            ),
        }
        if let Some(Transfer {
            task: Task::Save { is_asked, .. },
            ..
        }) = &mut transfers.current
        {
            *is_asked = true;
        }
        answer
    }

    #[test]
    fn a_board_that_says_nothing_more_is_not_waited_for() {
        for holds in [false, true] {
            let mut transfers = available();
            let answer = asked(&mut transfers, holds);
            transfers.on_saved(3, holds, 100, 7, &OneRoom);
            transfers.on_piece(0, b"some", &OneRoom);
            let now = Instant::now();
            let deadline = transfers.expire(now, &OneRoom).expect("it waits");
            assert_eq!(answer.try_recv().err(), Some(TryRecvError::Empty));
            // Empty pieces are no progress.
            transfers.on_piece(4, b"", &OneRoom);
            assert_eq!(transfers.expire(now, &OneRoom), Some(deadline));
            assert_eq!(transfers.expire(deadline, &OneRoom), None);
            let refused = answer.try_recv().expect("it is answered");
            assert!(matches!(refused, Err(AdminError::Unavailable(_))));
            assert_eq!(transfers.held_room(), None);
            let released: Vec<_> = transfers.releases.into();
            let expected = if holds { vec![(3, false)] } else { vec![] };
            assert_eq!(released, expected);
        }
    }

    #[test]
    fn a_room_is_held_for_its_time_at_most() {
        let mut transfers = available();
        transfers.current = Some(Transfer {
            id: "r".into(),
            deadline: Instant::now() + HOLD,
            task: Task::Leaving {
                number: 1,
                checksum: 5,
            },
        });
        assert_eq!(transfers.held_room(), Some("r"));
        // It stays so while the line is down.
        transfers.on_link_lost();
        assert_eq!(transfers.held_room(), Some("r"));
        let now = Instant::now();
        let deadline = transfers.expire(now, &OneRoom).expect("it waits");
        assert!(deadline <= now + HOLD);
        transfers.expire(deadline, &OneRoom);
        assert_eq!(transfers.held_room(), None);
        assert_eq!(transfers.releases, [(3, false)]);
        assert!(transfers.give_up("r", 1, None, &OneRoom).is_err());
    }

    #[test]
    fn what_has_moved_is_said_again_until_the_board_knows() {
        let mut transfers = available();
        transfers.current = Some(Transfer {
            id: "r".into(),
            deadline: Instant::now() + HOLD,
            task: Task::Leaving {
                number: 1,
                checksum: 5,
            },
        });
        assert!(transfers.give_up("r", 2, None, &OneRoom).is_err());
        assert!(transfers.give_up("r", 1, None, &OneRoom).is_ok());
        transfers.on_link_lost();
        transfers.on_saved(3, true, 10, 5, &OneRoom);
        // Another state of it, which was not saved.
        transfers.on_saved(3, true, 10, 6, &OneRoom);
        assert_eq!(transfers.releases, [(3, true), (3, false)]);
        assert!(transfers.take_moved("r").is_some());
        assert!(transfers.take_moved("r").is_none());
    }

    #[test]
    fn a_server_that_stops_answers_all() {
        let mut transfers = available();
        let answer = asked(&mut transfers, true);
        let (sender, other) = mpsc::channel();
        let reply = Box::new(move |loaded| sender.send(loaded).expect("it is waited for"));
        transfers.begin_load(file_of("s", Vec::new()), None, reply);
        assert!(matches!(other.try_recv(), Ok(Err(_))), "one at a time");
        transfers.stop(&OneRoom);
        assert!(matches!(answer.try_recv(), Ok(Err(_))));
    }

    #[test]
    fn held_rooms_that_are_announced_without_end_are_bounded() {
        let mut transfers = available();
        for checksum in 0..10_000 {
            transfers.on_saved(3, true, 10, checksum, &OneRoom);
        }
        assert!(transfers.releases.len() <= 255);
    }

    #[test]
    fn a_room_that_has_arrived_goes_on_or_is_dropped() {
        for may_go_on in [true, false] {
            let mut transfers = available();
            transfers.current = Some(Transfer {
                id: "r".into(),
                deadline: Instant::now() + HOLD,
                task: Task::Arriving { number: 1 },
            });
            assert!(transfers.give_up("r", 1, None, &OneRoom).is_err());
            match may_go_on {
                true => assert!(transfers.end_hold("r", 1, &OneRoom).is_ok()),
                false => {
                    transfers.expire(Instant::now() + HOLD * 2, &OneRoom);
                }
            }
            assert_eq!(transfers.releases, [(3, !may_go_on)]);
            // If the line is cut before the board learns of it, it asks.
            transfers.on_link_lost();
            transfers.on_loaded(3, true, &OneRoom);
            assert_eq!(transfers.releases, [(3, !may_go_on)]);
        }
    }
}
