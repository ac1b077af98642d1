//! Sequences of events against the bundled rooms: a host with arbitrary budgets and slices, whose
//! transport refuses at random, sends the same as an undisturbed reference host.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, EventError, FaultPolicy, Host, Limits, ManualClock,
    MessagePayload, MessageRecipient, Module, OutputMessage, RoomKey, SendError, Transport,
};
use std::{cell::OnceCell, collections::BTreeMap, fs, path::Path, time::Duration};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Indices of the bundled rooms to open.
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
    /// A text that some of the rooms understand.
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
    /// Time advances here alone, when both hosts are idle.
    Advance {
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
    let (disturbed, reference) = (TestHost::new(&input, false), TestHost::new(&input, true));
    run(&input, disturbed, reference);
});

fn run(input: &Input<'_>, mut disturbed: TestHost, mut reference: TestHost) {
    for step in &input.steps {
        match *step {
            Step::Connect { room, client } => handle_event(
                &mut disturbed,
                &mut reference,
                room,
                Event::Connect(client.into()),
            ),
            Step::Disconnect { room, client } => {
                handle_event(
                    &mut disturbed,
                    &mut reference,
                    room,
                    Event::Disconnect(client.into()),
                );
            }
            Step::Text { room, client, text } => {
                handle_event(
                    &mut disturbed,
                    &mut reference,
                    room,
                    Event::message(client.into(), text),
                );
            }
            Step::Bytes {
                room,
                client,
                bytes,
            } => {
                handle_event(
                    &mut disturbed,
                    &mut reference,
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
                handle_event(
                    &mut disturbed,
                    &mut reference,
                    room,
                    Event::message(client.into(), text),
                );
            }
            Step::Poll { fuel } => {
                disturbed.host.poll(Budget::fuel(fuel.into()));
                disturbed.collect_closed();
            }
            Step::Refuse { pattern } => disturbed.host.transport_mut().refusals = pattern,
            Step::Close { room } => {
                // Before, since what a busy room has sent depends on its progress.
                run_until_idle(&mut disturbed, &mut reference);
                for side in [&mut disturbed, &mut reference] {
                    // Fails if the room has ended.
                    let _ = side.host.close(side.key(room));
                    side.collect_closed();
                }
            }
            Step::Advance { millis } => {
                run_until_idle(&mut disturbed, &mut reference);
                for side in [&mut disturbed, &mut reference] {
                    side.host
                        .clock()
                        .advance(Duration::from_millis(millis.into()));
                }
            }
        }
    }
    run_until_idle(&mut disturbed, &mut reference);
}

/// Sends an event to a room of both hosts and compares the results.
fn handle_event(disturbed: &mut TestHost, reference: &mut TestHost, room: u8, event: Event<'_>) {
    let (a, b) = (disturbed.key(room), reference.key(room));
    let (result, expected) = (
        disturbed.host.enqueue(a, event),
        reference.host.enqueue(b, event),
    );
    // A room that fails may fail earlier in one of them.
    let room_failed = matches!(result, Err(EventError::Closed | EventError::UnknownRoom));
    assert!(
        result == expected || room_failed,
        "{result:?}, not {expected:?}"
    );
}

/// Runs both hosts until they are idle, and compares all that can be observed.
fn run_until_idle(disturbed: &mut TestHost, reference: &mut TestHost) {
    for side in [&mut *disturbed, &mut *reference] {
        side.run_until_idle();
    }
    assert_eq!(disturbed.take_sent(), reference.take_sent());
    assert_eq!(disturbed.closed, reference.closed);
    assert_eq!(disturbed.host.poll_timeout(), reference.host.poll_timeout());
    for (a, b) in disturbed.keys.iter().zip(&reference.keys) {
        let observe = |side: &TestHost, key: RoomKey| {
            let room = side.host.room(key)?;
            let mut stats = room.stats();
            assert!(stats.memory_bytes <= limits(0).max_memory_bytes);
            assert_eq!(stats.waiting_events, 0);
            // A room that fails may fail earlier in one of them.
            stats.messages_in = 0;
            Some((stats, room.poll_timeout(), room.clients().to_vec()))
        };
        assert_eq!(observe(disturbed, *a), observe(reference, *b));
    }
}

/// A host with its rooms.
struct TestHost {
    host: Host<ManualClock, RecordingTransport>,
    keys: Vec<RoomKey>,
    closed: Vec<(RoomKey, String)>,
}

impl TestHost {
    fn new(input: &Input<'_>, is_reference: bool) -> Self {
        // The highest bit chooses no slice.
        let on_fault = match input.slice & 0x80 {
            0 => FaultPolicy::Close,
            _ => FaultPolicy::Continue,
        };
        let host = Host::new(ManualClock::new(), RecordingTransport::default()).with_seed(3);
        let mut host = host.with_fault_policy(on_fault);
        let keys = input.rooms.iter().enumerate().map(|(i, room)| {
            let module = module(
                *room,
                if is_reference {
                    SLICES.len() - 1
                } else {
                    usize::from(input.slice & 0x7f)
                },
            );
            host.open(&i.to_string(), &module)
                .expect("the bundled rooms open")
        });
        let keys = keys.collect();
        Self {
            host,
            keys,
            closed: Vec::new(),
        }
    }

    fn key(&self, room: u8) -> RoomKey {
        self.keys[usize::from(room) % self.keys.len()]
    }

    fn collect_closed(&mut self) {
        for closed in std::iter::from_fn(|| self.host.poll_closed()) {
            self.closed
                .push((closed.key, format!("{:?}", closed.fault)));
        }
    }

    fn run_until_idle(&mut self) {
        self.host.transport_mut().refusals = 0;
        let now = self.host.clock().now();
        while self
            .host
            .poll(Budget::UNLIMITED)
            .is_some_and(|at| at <= now)
            || self.host.is_blocked()
        {}
        self.collect_closed();
        self.closed.sort();
    }

    /// Takes what each room has sent since the last call.
    fn take_sent(&mut self) -> BTreeMap<RoomKey, Vec<Sent>> {
        std::mem::take(&mut self.host.transport_mut().sent)
    }
}

/// An output, or a client's connect.
#[derive(Debug, PartialEq)]
enum Sent {
    Connected(ClientId),
    Text(MessageRecipient, String),
    Bytes(MessageRecipient, Vec<u8>),
}

/// Records what is sent; `refusals` is a cyclic bit pattern of calls that it refuses.
#[derive(Default)]
struct RecordingTransport {
    refusals: u64,
    sent: BTreeMap<RoomKey, Vec<Sent>>,
}

impl RecordingTransport {
    fn accept(&mut self) -> Result<(), SendError<&'static str>> {
        self.refusals = self.refusals.rotate_right(1);
        if self.refusals & 1 == 1 {
            return Err(SendError::WouldBlock);
        }
        Ok(())
    }
}

impl Transport for RecordingTransport {
    type Error = &'static str;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<&'static str>> {
        self.accept()?;
        self.sent
            .entry(room)
            .or_default()
            .push(match message.payload {
                MessagePayload::Text(text) => Sent::Text(message.recipient, text.to_owned()),
                MessagePayload::Bytes(bytes) => Sent::Bytes(message.recipient, bytes.to_owned()),
            });
        Ok(())
    }

    fn connected(
        &mut self,
        room: RoomKey,
        client: ClientId,
    ) -> Result<(), SendError<&'static str>> {
        self.accept()?;
        self.sent
            .entry(room)
            .or_default()
            .push(Sent::Connected(client));
        Ok(())
    }
}

const SLICES: [u64; 5] = [100, 777, 5_000, 30_000, u64::MAX];

fn limits(slice: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_memory_bytes = 4 << 20;
    limits.fuel_per_slice = slice;
    limits.max_fuel_per_event = Some(2_000_000);
    limits.max_message_bytes = 4 << 10;
    // So that neither host refuses an event that the other accepts.
    limits.max_inbox_events = usize::MAX;
    limits.max_inbox_bytes = usize::MAX;
    limits
}

thread_local! {
    /// The bundled rooms, each loaded with each slice length.
    static MODULES: OnceCell<Vec<[Module; SLICES.len()]>> = const { OnceCell::new() };
}

fn module(room: u8, slice: usize) -> Module {
    MODULES.with(|modules| {
        let modules = modules.get_or_init(|| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rooms/wasm");
            let files = fs::read_dir(folder).expect("the bundled rooms exist");
            let mut files: Vec<_> = files
                .map(|file| file.expect("the folder can be read").path())
                // Go's runtime takes milliseconds to start.
                .filter(|path| !path.ends_with("echo-go.wasm"))
                .collect();
            files.sort();
            let load = |wasm: &[u8], slice| {
                Module::load(wasm, &limits(slice)).expect("bundled rooms load")
            };
            files
                .iter()
                .map(|path| {
                    let wasm = fs::read(path).expect("bundled rooms can be read");
                    SLICES.map(|slice| load(&wasm, slice))
                })
                .collect()
        });
        modules[usize::from(room) % modules.len()][slice % SLICES.len()].clone()
    })
}
