//! Rooms that are seldom spoken to: a server has thousands, and what an event touches of one of them
//! has left the processor's caches when the next comes.

use super::{
    measure::{Contender, Effort, Figure, rounds},
    rows::{ECHO_0_4, ECHO_C, Guest},
    table::{Group, Row, Unit},
};
use crate::runtime::{Event, OutputCounter, Room, Runtime};
use std::{cell::RefCell, sync::Arc, time::Instant};

/// How many rooms have events by turns. The first is the hot one.
const ROOMS: [usize; 4] = [1, 50, 1_000, 5_000];

pub fn rows(effort: Effort) -> Vec<Row> {
    [ECHO_C, ECHO_0_4]
        .into_iter()
        .flat_map(|guest| guest_rows(guest, effort))
        .collect()
}

fn guest_rows(guest: Guest, effort: Effort) -> Vec<Row> {
    let wasm = guest.wasm();
    let hosts = guest
        .hosts()
        .map(|(name, runtime)| (name, RefCell::new(ManyRooms::open(&*runtime, &wasm))));
    let mut contenders: Vec<_> = ROOMS
        .iter()
        .flat_map(|count| {
            hosts
                .iter()
                .map(move |(name, rooms)| (*count, *name, rooms))
        })
        .map(|(count, name, rooms)| {
            Contender::timed(name, move |events| {
                let mut rooms = rooms.borrow_mut();
                // Whole passes, so that each room is as cold as the others.
                let passes = events.div_ceil(count as u64);
                let start = Instant::now();
                for _ in 0..passes {
                    rooms.pass(count);
                }
                let share = events as f64 / (passes * count as u64) as f64;
                start.elapsed().mul_f64(share)
            })
        })
        .collect();
    let nanos = rounds(&mut contenders, effort);
    let names = hosts.each_ref().map(|(name, _)| *name);
    let row = |title, unit, [ours, theirs]: [Vec<f64>; 2]| Row {
        title,
        group: Group::ColdRooms,
        unit,
        figures: vec![
            Figure::new(names[0], ours.clone(), &ours),
            Figure::new(names[1], theirs, &ours),
        ],
        goal: None,
    };
    let of_count = |index: usize| [&nanos[2 * index], &nanos[2 * index + 1]];
    let hot = of_count(0);
    let mut rows = vec![row(
        format!("{} echo, one room", guest.title),
        Unit::Nanos,
        hot.map(Vec::clone),
    )];
    for (index, count) in ROOMS.iter().enumerate().skip(1) {
        let cold = of_count(index);
        let title = format!("{} echo, {count} rooms", guest.title);
        let multiples = [0, 1].map(|host| {
            let pairs = cold[host].iter().zip(hot[host]);
            pairs.map(|(cold, hot)| cold / hot).collect()
        });
        rows.push(row(title.clone(), Unit::Nanos, cold.map(Vec::clone)));
        rows.push(row(
            format!("{title}, against one room"),
            Unit::Times,
            multiples,
        ));
    }
    rows
}

/// As many rooms as the longest row needs, of one module in one host.
struct ManyRooms {
    rooms: Vec<Box<dyn Room>>,
    sink: Arc<OutputCounter>,
}

impl ManyRooms {
    fn open(runtime: &dyn Runtime, wasm: &[u8]) -> Self {
        let module = runtime.load(wasm).expect("the module loads");
        let sink = Arc::new(OutputCounter::default());
        let open = |id: usize| {
            let id = format!("room-{id}");
            let mut room = module.open(&id, sink.clone()).expect("the room opens");
            room.handle(Event::Connect(1));
            room
        };
        let last = ROOMS.last().expect("there are rows");
        let rooms = (0..*last).map(open).collect();
        let mut rooms = Self { rooms, sink };
        // What a guest allocates once is not measured.
        for _ in 0..4 {
            rooms.pass(*last);
        }
        rooms
    }

    /// An event for each of the first `count` rooms.
    fn pass(&mut self, count: usize) {
        let before = self.sink.messages();
        for room in &mut self.rooms[..count] {
            room.handle(Event::text(1, "0123456789abcdef"));
        }
        let replies = self.sink.messages() - before;
        assert_eq!(replies, count as u64, "every event has a reply");
    }
}
