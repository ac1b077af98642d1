//! What a room did for a step, beside what its script expects.

use super::line::{Expectation, Recipients};
use crate::{
    display::Literal,
    driver::{Message, RoomDriver},
};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use stateroom_wasmi_host::{ClientId, Escaped, MessagePayload, OwnedPayload, WithSources};
use std::collections::BTreeMap;

/// Something that a room did.
pub(super) enum Happened {
    Message {
        clients: Vec<ClientId>,
        payload: OwnedPayload,
    },
    /// Its description.
    Fault(String),
}

/// What happens to the expectations of a step so that they are what happened.
pub(super) enum Change {
    /// The expectation of this index says something else.
    Replace(usize, String),
    Remove(usize),
    /// Before the expectation of this index; or behind the last.
    Insert(usize, String),
}

/// Takes what the room has done since the last call: what it sent, and then how it failed.
pub(super) fn take_happened(driver: &mut RoomDriver) -> Vec<Happened> {
    let messages = driver.take_messages();
    let messages = messages.into_iter().map(|message| {
        let Message {
            clients, payload, ..
        } = message;
        Happened::Message { clients, payload }
    });
    let faults = driver.faults.drain(..);
    let faults = faults.map(|fault| Happened::Fault(WithSources(&fault).to_string()));
    messages.chain(faults).collect()
}

/// How the expectations differ from what happened. Each client has its own order: how its messages
/// stand among those of others makes no difference.
pub(super) fn changes(
    expected: &[&Expectation],
    happened: &[Happened],
    connected: &[ClientId],
) -> Vec<Change> {
    if is_as_expected(expected, happened, connected) {
        return Vec::new();
    }
    let mut faults = happened.iter().filter_map(Happened::fault);
    let old: Vec<_> = expected
        .iter()
        .map(|expectation| describe_expectation(expectation, &mut faults, connected))
        .collect();
    let new: Vec<_> = happened
        .iter()
        .map(|happened| happened.describe(connected))
        .collect();
    let mut changes = Vec::new();
    for operation in capture_diff_slices(Algorithm::Myers, &old, &new) {
        let (old, range) = (operation.old_range(), operation.new_range());
        if matches!(operation, DiffOp::Equal { .. }) {
            continue;
        }
        // Pairs, and then what only one of the two has.
        let paired = old.len().min(range.len());
        let new = &new[range];
        for (index, text) in old.clone().zip(new) {
            changes.push(Change::Replace(index, text.clone()));
        }
        changes.extend(old.clone().skip(paired).map(Change::Remove));
        let inserted = new.iter().skip(paired);
        changes.extend(inserted.map(|text| Change::Insert(old.end, text.clone())));
    }
    changes
}

fn is_as_expected(
    expected: &[&Expectation],
    happened: &[Happened],
    connected: &[ClientId],
) -> bool {
    let mut expected_messages = Inboxes::new();
    let mut expected_faults = Vec::new();
    for expectation in expected {
        match expectation {
            // It would expect nothing.
            Expectation::Message(Recipients::All, _) if connected.is_empty() => return false,
            Expectation::Message(recipients, payload) => {
                for client in recipients.resolve(connected) {
                    let inbox = expected_messages.entry(*client).or_default();
                    inbox.push(payload.as_payload());
                }
            }
            Expectation::Fault(text) => expected_faults.push(text),
        }
    }
    let mut messages = Inboxes::new();
    for happened in happened {
        if let Happened::Message { clients, payload } = happened {
            for client in clients {
                let inbox = messages.entry(*client).or_default();
                inbox.push(payload.as_payload());
            }
        }
    }
    let faults: Vec<_> = happened.iter().filter_map(Happened::fault).collect();
    let are_faults_expected = faults.len() == expected_faults.len()
        && expected_faults
            .iter()
            .zip(&faults)
            .all(|(text, fault)| fault.contains(*text));
    are_faults_expected && messages == expected_messages
}

/// What each client receives, in order.
type Inboxes<'a> = BTreeMap<ClientId, Vec<MessagePayload<'a>>>;

impl Recipients {
    fn resolve<'a>(&'a self, connected: &'a [ClientId]) -> &'a [ClientId] {
        match self {
            Self::All => connected,
            Self::Clients(clients) => clients,
        }
    }
}

impl Happened {
    fn fault(&self) -> Option<&str> {
        match self {
            Self::Message { .. } => None,
            Self::Fault(text) => Some(text),
        }
    }

    /// As a line of a script.
    pub(super) fn describe(&self, connected: &[ClientId]) -> String {
        match self {
            Self::Message { clients, payload } => {
                describe_message(clients, payload.as_payload(), connected)
            }
            Self::Fault(text) => describe_fault(text),
        }
    }
}

/// As a line of a script, as [`Happened::describe`] would write it.
fn describe_expectation<'a>(
    expectation: &Expectation,
    faults: &mut impl Iterator<Item = &'a str>,
    connected: &[ClientId],
) -> String {
    match expectation {
        Expectation::Message(recipients, payload) => {
            let clients = recipients.resolve(connected);
            describe_message(clients, payload.as_payload(), connected)
        }
        Expectation::Fault(text) => {
            let fault = faults.next().filter(|fault| fault.contains(text));
            describe_fault(fault.unwrap_or(text))
        }
    }
}

fn describe_message(
    clients: &[ClientId],
    payload: MessagePayload<'_>,
    connected: &[ClientId],
) -> String {
    let clients = if clients.len() > 1 && clients == connected {
        "all".into()
    } else {
        let clients: Vec<_> = clients.iter().map(ToString::to_string).collect();
        clients.join(", ")
    };
    format!("{clients} < {}", Literal(payload))
}

fn describe_fault(text: &str) -> String {
    format!("fault {:?}", Escaped::new(text))
}
