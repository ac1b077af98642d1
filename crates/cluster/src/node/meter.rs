//! What this node's rooms do and take.

use super::{Event, Node};
use crate::{
    protocol::Load,
    shard::{SHARDS, Shard},
};
use core::time::Duration;
use stateroom_wasmi_server::ServerLoad;
use std::time::Instant;

/// Measures rooms now and then.
#[derive(Default)]
pub(super) struct Meter {
    /// When they were to be measured last.
    asked_at: Option<Instant>,
    /// When they were, and how long guests had run then.
    before: Option<(Instant, Duration)>,
    load: Option<Load>,
}

impl Meter {
    /// What the rooms do and take, if that was measured.
    pub(super) const fn load(&self) -> Option<Load> {
        self.load
    }

    /// What was measured; returns what the node's rooms do and take, and those of each shard, from the second
    /// time on.
    fn measured(&mut self, load: ServerLoad, now: Instant) -> Option<(Load, Vec<Load>)> {
        let (at, before) = self.before.replace((now, load.guest_time))?;
        let time = (now - at).as_micros().max(1) * load.workers.max(1) as u128;
        let guest_time = load.guest_time.saturating_sub(before).as_micros();
        let busy = (guest_time * 1_000_000 / time).min(1_000_000) as u64;
        let fuel = load.groups.iter().map(|group| u128::from(group.fuel));
        let all_fuel = fuel.sum::<u128>().max(1);
        let shards = load.groups.iter().map(|group| Load {
            processor: (u128::from(busy) * u128::from(group.fuel) / all_fuel) as u32,
            memory: u32::try_from(group.memory_bytes >> 10).unwrap_or(u32::MAX),
            rooms: u32::try_from(group.rooms).unwrap_or(u32::MAX),
        });
        let shards: Vec<_> = shards.collect();
        let sum = |part: fn(&Load) -> u32| shards.iter().map(part).fold(0, u32::saturating_add);
        let own = Load {
            processor: busy as u32,
            memory: sum(|load| load.memory),
            rooms: sum(|load| load.rooms),
        };
        self.load = Some(own);
        Some((own, shards))
    }
}

impl Node {
    /// Measures the rooms if it is time for that.
    pub(super) fn measure(&mut self) {
        const INTERVAL: Duration = Duration::from_secs(5);
        let asked_at = &mut self.meter.asked_at;
        let Some((rooms, _)) = &self.rooms else {
            return;
        };
        if asked_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        *asked_at = Some(Instant::now());
        let (load, sender) = (rooms.load(), self.sender.clone());
        tokio::spawn(async move {
            let _ = sender.send(Event::Measured(load.await));
        });
    }

    pub(super) fn measured(&mut self, load: ServerLoad, now: Duration) {
        let Some((own, shards)) = self.meter.measured(load, Instant::now()) else {
            return;
        };
        let shards: Vec<_> = Shard::all().zip(shards).collect();
        self.membership.handle_measured(own, &shards, now);
    }

    /// Whether it has about as many rooms as it may.
    pub(super) fn is_full(&self) -> bool {
        let (load, max) = (self.meter.load(), self.config.max_rooms);
        load.zip(max)
            .is_some_and(|(load, max)| u64::from(load.rooms) * 10 >= max * 9)
    }

    /// Whether this node's shards may have another room: of all rooms that may be stored, as many as its share of
    /// the shards, so that nobody needs to count them all.
    pub(super) fn may_store_more(&self) -> Result<(), u64> {
        let Some(max) = self.config.max_stored_rooms else {
            return Ok(());
        };
        let owned = self.owned.values().filter(|owned| owned.is_active);
        let (shards, rooms) = owned.fold((0, 0), |(shards, rooms), owned| {
            (shards + 1, rooms + owned.number_count() as u64)
        });
        let share = (u128::from(max) * shards).div_ceil(SHARDS as u128);
        match u128::from(rooms) < share {
            true => Ok(()),
            false => Err(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateroom_wasmi_server::GroupLoad;

    fn load(guest_time: u64, fuel: [u64; 2]) -> ServerLoad {
        let mut load = ServerLoad::default();
        load.workers = 2;
        load.guest_time = Duration::from_secs(guest_time);
        load.groups = fuel
            .map(|fuel| {
                let mut group = GroupLoad::default();
                (group.rooms, group.fuel, group.memory_bytes) = (3, fuel, 5 << 20);
                group
            })
            .into();
        load
    }

    #[test]
    fn time_is_shared_out_by_fuel() {
        let (mut meter, began_at) = (Meter::default(), Instant::now());
        assert_eq!(meter.measured(load(7, [1000, 5000]), began_at), None);
        let later = began_at + Duration::from_secs(10);
        // Five of twenty seconds, three fifths of the fuel.
        let measured = meter.measured(load(12, [600, 400]), later);
        let (own, shards) = measured.expect("it is the second time");
        let shard = |processor| Load {
            processor,
            memory: 5 << 10,
            rooms: 3,
        };
        assert_eq!(shards, [shard(150_000), shard(100_000)]);
        let all = Load {
            processor: 250_000,
            memory: 10 << 10,
            rooms: 6,
        };
        assert_eq!((own, meter.load()), (all, Some(all)));
        // Nothing has run.
        let later = later + Duration::from_secs(10);
        let (own, shards) = meter.measured(load(12, [0, 0]), later).expect("some");
        assert_eq!((own.processor, shards[0].processor), (0, 0));
    }
}
