//! The lines of a script.

use stateroom_wasmi_host::{ClientId, FaultPolicy, Instant, OwnedPayload};
use std::ops::Range;

/// A line of a script, with where it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    /// Where it is in the text, without its end.
    pub(super) range: Range<usize>,
    /// Where its comment is in the text, from the `#` on; empty if it has none.
    pub(super) comment: Range<usize>,
    pub(super) statement: Statement,
}

#[derive(Clone, Debug)]
pub(super) enum Statement {
    /// At most a comment.
    Blank,
    /// It is in the script's [`Settings`].
    Setting,
    Step(Step),
    Expectation(Expectation),
}

/// What a line lets happen.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Connect(ClientId),
    Disconnect(ClientId),
    Send(ClientId, OwnedPayload),
    /// The room goes on with its next module.
    Upgrade,
    /// Time passes up to here.
    Time(Instant),
}

/// What a line expects of the room.
#[derive(Clone, Debug)]
pub(super) enum Expectation {
    Message(Recipients, OwnedPayload),
    /// A fault whose description contains this.
    Fault(String),
}

#[derive(Clone, Debug)]
pub(super) enum Recipients {
    /// All that are connected.
    All,
    /// In order, each once.
    Clients(Vec<ClientId>),
}

/// What a script says of its room; the rest is the options'.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) room_id: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) on_fault: Option<FaultPolicy>,
    pub(super) max_fuel_per_event: Option<u64>,
}
