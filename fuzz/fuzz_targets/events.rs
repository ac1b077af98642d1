//! Sequences of events against the bundled rooms: a host whose transport refuses and whose budgets
//! and slices are anything sends the same as one that is left in peace.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, EventError, Host, Limits, ManualClock, MessagePayload,
    MessageRecipient, Module, Output, RoomKey, SendError, Transport,
};
use std::{cell::OnceCell, collections::BTreeMap, fs, path::Path, time::Duration};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Which rooms there are.
    rooms: [u8; 3],
    slice: u8,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Connect {
        room: u8,
        client: Client,
    },
    Disconnect {
        room: u8,
        client: Client,
    },
    Text {
        room: u8,
        client: Client,
        text: &'a str,
    },
    Bytes {
        room: u8,
        client: Client,
        bytes: &'a [u8],
    },
    /// What the rooms know how to read.
    Command {
        room: u8,
        client: Client,
        which: u8,
    },
    Poll {
        fuel: u32,
    },
    Refuse {
        pattern: u64,
    },
    Close {
        room: u8,
    },
    /// Only here, when both hosts have nothing left to do, the time goes on.
    Settle {
        millis: u16,
    },
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Client {
    Usual(u8),
    Any(u32),
}

impl From<Client> for ClientId {
    fn from(client: Client) -> Self {
        match client {
            Client::Usual(number) => Self(u32::from(number % 4) + 1),
            Client::Any(number) => Self(number),
        }
    }
}

const COMMANDS: [&str; 8] = [
    "+",
    "-5",
    "2d6",
    "d20",
    "/nick ada",
    "12,34",
    "{\"x\":1,\"y\":2}",
    "hello",
];

fuzz_target!(|input: Input<'_>| {
    let (tried, calm) = (Side::new(&input, false), Side::new(&input, true));
    run(&input, tried, calm);
});

fn run(input: &Input<'_>, mut tried: Side, mut calm: Side) {
    for step in &input.steps {
        match *step {
            Step::Connect { room, client } => {
                both(&mut tried, &mut calm, room, Event::Connect(client.into()))
            }
            Step::Disconnect { room, client } => {
                both(
                    &mut tried,
                    &mut calm,
                    room,
                    Event::Disconnect(client.into()),
                );
            }
            Step::Text { room, client, text } => {
                both(
                    &mut tried,
                    &mut calm,
                    room,
                    Event::message(client.into(), text),
                );
            }
            Step::Bytes {
                room,
                client,
                bytes,
            } => {
                both(
                    &mut tried,
                    &mut calm,
                    room,
                    Event::message(client.into(), bytes),
                );
            }
            Step::Command {
                room,
                client,
                which,
            } => {
                let text = COMMANDS[usize::from(which) % COMMANDS.len()];
                both(
                    &mut tried,
                    &mut calm,
                    room,
                    Event::message(client.into(), text),
                );
            }
            Step::Poll { fuel } => {
                tried.host.poll(Budget::fuel(fuel.into()));
                tried.look();
            }
            Step::Refuse { pattern } => tried.host.transport_mut().refusals = pattern,
            Step::Close { room } => {
                // What was said up to then depends on how far it came.
                settle(&mut tried, &mut calm);
                for side in [&mut tried, &mut calm] {
                    side.host.close(side.key(room));
                    side.look();
                }
            }
            Step::Settle { millis } => {
                settle(&mut tried, &mut calm);
                for side in [&mut tried, &mut calm] {
                    side.host
                        .clock()
                        .advance(Duration::from_millis(millis.into()));
                }
            }
        }
    }
    settle(&mut tried, &mut calm);
}

/// Gives an event to a room of both hosts, which answer the same.
fn both(tried: &mut Side, calm: &mut Side, room: u8, event: Event<'_>) {
    let (a, b) = (tried.key(room), calm.key(room));
    let (answer, expected) = (
        tried.host.handle_event(a, event),
        calm.host.handle_event(b, event),
    );
    // One that fails may fail earlier.
    let has_failed = matches!(answer, Err(EventError::Closed | EventError::UnknownRoom));
    assert!(
        answer == expected || has_failed,
        "{answer:?}, not {expected:?}"
    );
}

/// Lets both hosts do all that there is to do now, which comes to the same.
fn settle(tried: &mut Side, calm: &mut Side) {
    for side in [&mut *tried, &mut *calm] {
        side.settle();
    }
    assert_eq!(tried.sent(), calm.sent());
    assert_eq!(tried.ended, calm.ended);
    assert_eq!(tried.host.poll_timeout(), calm.host.poll_timeout());
    for (a, b) in tried.keys.iter().zip(&calm.keys) {
        let look = |side: &Side, key: RoomKey| {
            let room = side.host.room(key)?;
            let mut stats = room.stats();
            assert!(stats.memory_bytes <= limits(0).max_memory_bytes);
            assert_eq!(stats.waiting_events, 0);
            // What a room that has failed did not take is another matter.
            stats.messages_in = 0;
            Some((stats, room.poll_timeout(), room.clients().to_vec()))
        };
        assert_eq!(look(tried, *a), look(calm, *b));
    }
}

/// A host with its rooms.
struct Side {
    host: Host<ManualClock, Recording>,
    keys: Vec<RoomKey>,
    ended: Vec<(RoomKey, String)>,
}

impl Side {
    fn new(input: &Input<'_>, is_calm: bool) -> Self {
        let mut host = Host::new(ManualClock::new(), Recording::default()).with_seed(3);
        let keys = input.rooms.iter().enumerate().map(|(i, room)| {
            let module = module(
                *room,
                if is_calm {
                    SLICES.len() - 1
                } else {
                    usize::from(input.slice)
                },
            );
            host.open(&i.to_string(), &module)
                .expect("the bundled rooms open")
        });
        let keys = keys.collect();
        Self {
            host,
            keys,
            ended: Vec::new(),
        }
    }

    fn key(&self, room: u8) -> RoomKey {
        self.keys[usize::from(room) % self.keys.len()]
    }

    fn look(&mut self) {
        for closed in std::iter::from_fn(|| self.host.poll_closed()) {
            self.ended.push((closed.key, format!("{:?}", closed.fault)));
        }
    }

    fn settle(&mut self) {
        self.host.transport_mut().refusals = 0;
        let now = self.host.clock().now();
        while self
            .host
            .poll(Budget::UNLIMITED)
            .is_some_and(|at| at <= now)
            || self.host.is_blocked()
        {}
        self.look();
        self.ended.sort();
    }

    /// What each room has said since this was asked last.
    fn sent(&mut self) -> BTreeMap<RoomKey, Vec<Said>> {
        std::mem::take(&mut self.host.transport_mut().sent)
    }
}

/// An output, or a client that came.
#[derive(Debug, PartialEq)]
enum Said {
    Connected(ClientId),
    Text(MessageRecipient, String),
    Bytes(MessageRecipient, Vec<u8>),
}

/// Refuses where a bit is set, bit after bit; then it starts over.
#[derive(Default)]
struct Recording {
    refusals: u64,
    sent: BTreeMap<RoomKey, Vec<Said>>,
}

impl Transport for Recording {
    type Error = &'static str;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<&'static str>> {
        self.refusals = self.refusals.rotate_right(1);
        if self.refusals & 1 == 1 {
            return Err(SendError::WouldBlock);
        }
        self.sent
            .entry(room)
            .or_default()
            .push(match output.payload {
                MessagePayload::Text(text) => Said::Text(output.recipient, text.to_owned()),
                MessagePayload::Bytes(bytes) => Said::Bytes(output.recipient, bytes.to_owned()),
            });
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        self.sent
            .entry(room)
            .or_default()
            .push(Said::Connected(client));
    }
}

const SLICES: [u64; 5] = [100, 777, 5_000, 30_000, u64::MAX];

fn limits(slice: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_memory_bytes = 4 << 20;
    limits.fuel_per_slice = slice;
    limits.max_fuel_per_event = Some(2_000_000);
    limits.max_message_bytes = 4 << 10;
    // So that both take the same.
    limits.max_inbox_events = usize::MAX;
    limits.max_inbox_bytes = usize::MAX;
    limits
}

thread_local! {
    /// The bundled rooms, each with each of the slices.
    static MODULES: OnceCell<Vec<[Module; SLICES.len()]>> = const { OnceCell::new() };
}

fn module(room: u8, slice: usize) -> Module {
    MODULES.with(|modules| {
        let modules = modules.get_or_init(|| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rooms/wasm");
            let files = fs::read_dir(folder).expect("the rooms are there");
            let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
            files.sort();
            let load = |wasm: &[u8], slice| Module::load(wasm, &limits(slice)).expect("it loads");
            files
                .iter()
                .map(|path| {
                    let wasm = fs::read(path).expect("it can be read");
                    SLICES.map(|slice| load(&wasm, slice))
                })
                .collect()
        });
        modules[usize::from(room) % modules.len()][slice % SLICES.len()].clone()
    })
}
