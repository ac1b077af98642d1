//! Shared by the tests: guests in WebAssembly text, and helpers to drive a room.

use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, MessagePayload, MessageRecipient, Module, Output,
    OutputMessage, OwnedPayload, Room, RoomOptions,
};

/// All imports of ABI 0.2, by their names.
pub const ENV: &str = r#"
    (import "env" "send_message" (func $send_message (param i32 i32 i32)))
    (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
    (import "env" "set_timer" (func $set_timer (param i32)))"#;

/// A function of a guest with [`ENV`] that sends a number to everybody, for [`numbers`].
pub const SAY: &str = r#"
    (func $say (param i32)
        (i32.store (i32.const 16) (local.get 0))
        (call $send_binary (i32.const 0) (i32.const 16) (i32.const 4)))"#;

/// A guest of ABI 0.2 with 64 KiB of memory and an allocator that always returns 4096. A test adds
/// its own `imports`, bodies of `exports` and `more` definitions; other exports have empty bodies.
pub fn guest_0_2(imports: &str, exports: &[(&str, &str)], more: &str) -> String {
    let defaults = [
        ("initialize", "(param i32 i32)"),
        ("connect", "(param i32)"),
        ("disconnect", "(param i32)"),
        ("timer", ""),
        ("message", "(param i32 i32 i32)"),
        ("binary", "(param i32 i32 i32)"),
        ("jam_malloc", "(param i32) (result i32)"),
        ("jam_free", "(param i32 i32)"),
    ];
    let mut text = format!("(module {imports} (memory (export \"memory\") 1) {more}");
    for (name, signature) in defaults {
        let given = exports
            .iter()
            .find(|(given, _)| *given == name)
            .map(|(_, body)| *body);
        let body = given.unwrap_or(if name == "jam_malloc" {
            "(i32.const 4096)"
        } else {
            ""
        });
        text += &format!("\n(func (export \"{name}\") {signature} {body})");
    }
    text + ")"
}

/// A guest that imports all of ABI 0.2 and can send numbers with [`SAY`].
pub fn speaker(exports: &[(&str, &str)], more: &str) -> String {
    guest_0_2(ENV, exports, &format!("{SAY} {more}"))
}

/// A guest that sends each message back to its sender.
pub fn echo() -> String {
    let echo = |send: &str| format!("(call {send} (local.get 0) (local.get 1) (local.get 2))");
    let (text, bytes) = (echo("$send_message"), echo("$send_binary"));
    guest_0_2(ENV, &[("message", &text), ("binary", &bytes)], "")
}

/// The same for ABI 0.4, with the body of `stateroom_recv`.
pub fn guest_0_4(recv: &str, more: &str) -> String {
    format!(
        r#"(module
        (import "env" "stateroom_send" (func $send (param i32 i32)))
        (memory (export "memory") 1) {more}
        (func (export "stateroom_malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "stateroom_free") (param i32 i32))
        (func (export "stateroom_recv") (param i32 i32) {recv}))"#
    )
}

/// Compiles WebAssembly text under the default limits.
pub fn module(text: &str) -> Module {
    module_with(text, &Limits::default())
}

pub fn module_with(text: &str, limits: &Limits) -> Module {
    Module::load(&assemble(text), limits).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The default limits with some changed.
pub fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// A room of a module, called `test`, at time zero.
pub fn room(module: &Module) -> Room {
    Room::new(module, "test", RoomOptions::default()).expect("the room opens")
}

/// A room of a guest under limits, with client 1 connected and all outputs taken.
pub fn room_of_one(text: &str, limits: &Limits) -> Room {
    let mut room = room(&module_with(text, limits));
    outputs(&mut room, Instant::ZERO);
    connect(&mut room, 1);
    outputs(&mut room, Instant::ZERO);
    room
}

/// Connects a client at time zero, and takes its `Joined` output.
pub fn connect(room: &mut Room, client: u32) {
    connect_at(room, Instant::ZERO, client);
}

/// The same at any time.
pub fn connect_at(room: &mut Room, now: Instant, client: u32) {
    room.handle_event(now, Event::Connect(ClientId(client)))
        .expect("the client may connect");
    if let Some(Output::Joined(_)) = room.peek_output() {
        room.poll_output();
    }
}

/// Sends text or bytes as client 1 at time zero.
pub fn send<'a>(room: &mut Room, payload: impl Into<MessagePayload<'a>>) {
    room.handle_event(Instant::ZERO, Event::message(ClientId(1), payload))
        .expect("the room accepts it");
}

/// An owned output: its recipient, and its payload as text (bytes in hex after `0x`).
pub type Said = (MessageRecipient, String);

/// Takes all outputs of a room, resuming it as long as it has work.
pub fn outputs(room: &mut Room, now: Instant) -> Vec<Said> {
    take(room, now, |output| {
        let text = match output.payload {
            MessagePayload::Text(text) => text.to_owned(),
            MessagePayload::Bytes(bytes) => hex(bytes),
        };
        (output.recipient, text)
    })
}

/// The same for a guest that sends numbers.
pub fn numbers(room: &mut Room, now: Instant) -> Vec<i32> {
    take(room, now, |output| {
        let number = output
            .payload
            .as_bytes()
            .try_into()
            .expect("a number has four bytes");
        i32::from_le_bytes(number)
    })
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The next message that the room sends; clients that join or leave are skipped.
pub fn next_message(room: &mut Room) -> Option<(MessageRecipient, OwnedPayload)> {
    loop {
        if let Some(message) = room.poll_output()?.message() {
            return Some((message.recipient, message.payload.to_owned()));
        }
    }
}

fn take<R>(room: &mut Room, now: Instant, mut read: impl FnMut(OutputMessage<'_>) -> R) -> Vec<R> {
    let mut taken = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            taken.extend(output.message().map(&mut read));
        }
        if !room.has_work(now) {
            return taken;
        }
        room.resume(now);
    }
}

/// Pseudorandom numbers (splitmix64) for randomized tests. The seed is printed, so that a failed
/// test shows it; set `TEST_SEED` to try another.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let seed = Self::given_seed().unwrap_or(1);
        println!("TEST_SEED={seed}");
        Self(seed)
    }

    /// The seed in `TEST_SEED`.
    pub fn given_seed() -> Option<u64> {
        std::env::var("TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
    }

    pub const fn of_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
