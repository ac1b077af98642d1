//! A store does what a simple model in memory does, whatever it is given, and when it is opened again.

use crate::{TempDir, event_bytes, events, load, stored, support::Random, write};
use stateroom_wasmi_server::journal::{
    Batch, Journal, RoomNumber, RoomSnapshot, RoomWrite, Stored,
};
use stateroom_wasmi_store::Reader;
use std::collections::BTreeMap;

/// What a room should be.
struct Room {
    number: RoomNumber,
    snapshot: RoomSnapshot,
    next_event: u64,
}

#[test]
fn a_store_does_what_a_model_does() {
    let mut random = Random::new();
    let folder = TempDir::new();
    let mut store = folder.open();
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    for _ in 0..1500 {
        let id = format!("room {}", random.below(12));
        match random.below(12) {
            0 => {
                drop(store);
                store = folder.open();
                let mut expected: Vec<_> = rooms
                    .iter()
                    .filter(|(_, room)| room.next_event > room.snapshot.events)
                    .map(|(id, _)| id.clone())
                    .collect();
                let mut unfinished: Vec<_> = store
                    .unfinished()
                    .into_iter()
                    .map(|room| String::from(room.id))
                    .collect();
                expected.sort();
                unfinished.sort();
                assert_eq!(unfinished, expected);
            }
            1 => match rooms.get(&id) {
                Some(room) => {
                    let found = stored(&store, &id);
                    assert_eq!(found.number, room.number);
                    assert_eq!(found.snapshot, room.snapshot);
                    let expected: Vec<_> = (room.snapshot.events..room.next_event).collect();
                    assert_eq!(events(&found), expected, "{id}");
                }
                None => assert!(matches!(load(&store, &id), Stored::New(_))),
            },
            2 => {
                let read = Reader::open(&folder.path()).expect("it opens").rooms();
                let read = read.expect("it can be read");
                assert_eq!(read.len(), rooms.len());
                for found in read {
                    let room = &rooms[&*found.id];
                    assert_eq!(found.events, room.snapshot.events);
                    assert_eq!(found.events_since, room.next_event - found.events);
                }
            }
            _ => write(&store, batch(&mut random, &mut rooms, &store)),
        }
    }
}

/// Random events and writes of some rooms.
fn batch(random: &mut Random, rooms: &mut BTreeMap<String, Room>, store: &impl Journal) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..=random.below(4) {
        let id = format!("room {}", random.below(12));
        let room = match rooms.get_mut(&id) {
            Some(room) => room,
            None => {
                let Stored::New(number) = load(store, &id) else {
                    panic!("it is there");
                };
                let snapshot = random_snapshot(random, 0);
                batch.write(
                    number,
                    RoomWrite::Snapshot {
                        id: (*id).into(),
                        snapshot: snapshot.clone(),
                    },
                );
                rooms.entry(id.clone()).or_insert(Room {
                    number,
                    snapshot,
                    next_event: 0,
                })
            }
        };
        for _ in 0..random.below(6) {
            let event = event_bytes(room.number, room.next_event);
            batch.log(room.number, room.next_event, &event);
            room.next_event += 1;
        }
        match random.below(8) {
            0 => {
                room.snapshot = random_snapshot(random, room.next_event);
                batch.write(
                    room.number,
                    RoomWrite::Snapshot {
                        id: (*id).into(),
                        snapshot: room.snapshot.clone(),
                    },
                );
            }
            1 if random.below(4) == 0 => {
                batch.write(room.number, RoomWrite::Remove);
                rooms.remove(&id);
                // A new room of this id is another one.
                return batch;
            }
            _ => {}
        }
    }
    batch
}

fn random_snapshot(random: &mut Random, events: u64) -> RoomSnapshot {
    let (room, clients) = (random.below(3000), random.below(50));
    RoomSnapshot {
        events,
        room: random.bytes(room),
        clients: random.bytes(clients),
        wake_at: None,
    }
}
