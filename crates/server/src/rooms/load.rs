//! What rooms do and take, for those who share them out.

use core::{ops::AddAssign, time::Duration};
use stateroom_wasmi_host::Room;

/// What a server's rooms do and take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLoad {
    /// Threads that run rooms.
    pub workers: usize,
    /// How long guests have run since the server began, on all of them together.
    pub guest_time: Duration,
    /// Open rooms by group.
    pub groups: Vec<GroupLoad>,
}

/// What a group of open rooms takes, and has done since that was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupLoad {
    /// How many there are.
    pub rooms: u64,
    /// Fuel that they have used since.
    pub fuel: u64,
    /// Bytes of their guests' memories, and of hibernating rooms.
    pub memory_bytes: u64,
}

impl GroupLoad {
    pub(crate) fn of(room: &Room) -> Self {
        let stats = room.stats();
        let memory = stats.memory_bytes + stats.instance_bytes + stats.hibernated_bytes;
        Self {
            rooms: 1,
            fuel: 0,
            memory_bytes: memory as u64,
        }
    }
}

impl AddAssign for GroupLoad {
    fn add_assign(&mut self, other: Self) {
        self.rooms += other.rooms;
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.memory_bytes += other.memory_bytes;
    }
}

impl AddAssign for ServerLoad {
    fn add_assign(&mut self, other: Self) {
        self.workers += other.workers;
        self.guest_time += other.guest_time;
        self.groups.resize(
            self.groups.len().max(other.groups.len()),
            GroupLoad::default(),
        );
        for (group, other) in self.groups.iter_mut().zip(other.groups) {
            *group += other;
        }
    }
}
