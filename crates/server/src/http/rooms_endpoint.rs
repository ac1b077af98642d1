//! The response to `GET /rooms`.

use crate::metrics::state_of;
use core::time::Duration;
use stateroom_wasmi_host::{Clock, Host, Room, Transport, WithSources};

/// All rooms of a server.
#[derive(Debug, serde::Serialize)]
pub(super) struct RoomList {
    /// The name of their module.
    pub(super) module: String,
    pub(super) abi: String,
    /// Ordered by id.
    pub(super) rooms: Vec<RoomSummary>,
    /// Rooms that failed in the last minutes, latest first.
    pub(super) failed: Vec<FailedRoom>,
    /// Whether clients connect to the address at which this is asked.
    pub(super) takes_clients: bool,
    /// What the page shows besides, such as why a module was not built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<String>,
}

/// A room that is gone since its guest failed.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct FailedRoom {
    id: String,
    fault: String,
    pub(crate) seconds_ago: u64,
}

impl FailedRoom {
    pub(crate) fn new(id: &str, fault: String) -> Self {
        Self {
            id: id.into(),
            fault,
            seconds_ago: 0,
        }
    }

    pub(crate) fn of_age(mut self, age: Duration) -> Self {
        self.seconds_ago = age.as_secs();
        self
    }
}

/// One room.
#[derive(Debug, serde::Serialize)]
pub(crate) struct RoomSummary {
    pub(crate) id: String,
    clients: usize,
    state: &'static str,
    memory_bytes: usize,
    /// Of the host's heap, for what the module declares.
    instance_bytes: usize,
    /// Of the host's heap, for the state of a room that hibernates.
    hibernated_bytes: usize,
    fuel_used: u64,
    messages_in: u64,
    messages_out: u64,
    /// The fault policy: `close`, `restart`, `continue` or `rollback`; none if unknown.
    on_fault: Option<String>,
    faults: u64,
    last_fault: Option<String>,
}

impl RoomList {
    /// The list in JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl RoomSummary {
    pub(crate) fn of_all<C: Clock, T: Transport>(host: &Host<C, T>) -> Vec<Self> {
        host.rooms().map(|(_, room)| Self::of(room)).collect()
    }

    /// A room of a board, whose statistics are unknown.
    #[cfg(feature = "board")]
    pub(crate) fn remote(id: &str, clients: usize) -> Self {
        Self {
            id: id.into(),
            clients,
            state: "open",
            memory_bytes: 0,
            instance_bytes: 0,
            hibernated_bytes: 0,
            fuel_used: 0,
            messages_in: 0,
            messages_out: 0,
            on_fault: None,
            faults: 0,
            last_fault: None,
        }
    }

    fn of(room: &Room) -> Self {
        let stats = room.stats();
        Self {
            id: room.id().into(),
            clients: stats.clients,
            state: state_of(room),
            memory_bytes: stats.memory_bytes,
            instance_bytes: stats.instance_bytes,
            hibernated_bytes: stats.hibernated_bytes,
            fuel_used: stats.fuel_used,
            messages_in: stats.messages_in,
            messages_out: stats.messages_out,
            on_fault: Some(room.on_fault().to_string()),
            faults: stats.faults,
            last_fault: room
                .last_fault()
                .map(|fault| WithSources(fault).to_string()),
        }
    }
}
