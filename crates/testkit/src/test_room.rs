//! A room that a test in Rust plays with.

use crate::{
    display::{Literal, Time, write_difference, write_printed},
    driver::RoomDriver,
    options::TestOptions,
};
use stateroom_wasmi_host::{
    ClientId, Event, Fault, Instant, MessagePayload, OwnedPayload, Room, WithSources,
};
use std::{
    fmt::{self, Write},
    thread,
    time::Duration,
};

/// A room under test, in virtual time.
///
/// Events are handled to their end before a call returns. What clients received stays until the test
/// takes it; what is left when the room is dropped is ignored, so end with
/// [`expect_nothing`](Self::expect_nothing) where that matters.
///
/// All methods panic where the room does not do what the test expects. A fault that
/// [`expect_fault`](Self::expect_fault) does not take is a panic of the next call, or of the drop.
pub struct TestRoom(RoomDriver);

/// A message that a client received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// When, in room time.
    pub at: Instant,
    /// What.
    pub payload: OwnedPayload,
}

impl Received {
    /// The text.
    ///
    /// # Panics
    ///
    /// If it is bytes.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        match &self.payload {
            OwnedPayload::Text(text) => text,
            OwnedPayload::Bytes(_) => {
                let payload = Literal(self.payload.as_payload());
                panic!("expected a text, received {}", payload.shortened())
            }
        }
    }

    /// The bytes.
    ///
    /// # Panics
    ///
    /// If it is a text.
    #[must_use]
    #[track_caller]
    pub fn bytes(&self) -> &[u8] {
        match &self.payload {
            OwnedPayload::Bytes(bytes) => bytes,
            OwnedPayload::Text(_) => {
                let payload = Literal(self.payload.as_payload());
                panic!("expected bytes, received {}", payload.shortened())
            }
        }
    }
}

impl TestRoom {
    /// Opens a room of a module (the contents of a `.wasm` file), with the default options.
    ///
    /// # Panics
    ///
    /// If the module cannot be loaded.
    #[must_use]
    #[track_caller]
    pub fn open(wasm: &[u8]) -> Self {
        Self::open_with(wasm, &TestOptions::new())
    }

    /// Opens a room of a module.
    ///
    /// # Panics
    ///
    /// If the module cannot be loaded, or not with these options.
    #[must_use]
    #[track_caller]
    pub fn open_with(wasm: &[u8], options: &TestOptions) -> Self {
        let opened = RoomDriver::open(wasm, options.room_id, options);
        Self(opened.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Connects a client, whose id is from 1 to 2³¹ − 1.
    ///
    /// # Panics
    ///
    /// If the room refuses it: it is connected already, the room is full or closed.
    #[track_caller]
    pub fn connect(&mut self, client: u32) {
        self.handle("connect", Event::Connect(ClientId(client)));
    }

    /// Disconnects a client. What it had received can still be taken.
    ///
    /// # Panics
    ///
    /// If it is not connected, or the room is closed.
    #[track_caller]
    pub fn disconnect(&mut self, client: u32) {
        self.handle("disconnect", Event::Disconnect(ClientId(client)));
    }

    /// Lets the room go on with another module (the contents of a `.wasm` file), to which its state passes by
    /// the modules' exports `stateroom_save` and `stateroom_load`. Its clients stay.
    ///
    /// # Panics
    ///
    /// If the module cannot be loaded, or the state does not pass.
    #[track_caller]
    pub fn upgrade(&mut self, wasm: &[u8]) {
        let upgraded = self.0.upgrade(Some(wasm));
        upgraded.unwrap_or_else(|error| panic!("upgrade: {error}"));
    }

    /// Lets a client send text (a `&str`) or bytes (a `&[u8]`).
    ///
    /// # Panics
    ///
    /// If the room refuses the message: the client is not connected, the message is too long, or the
    /// room is closed.
    #[track_caller]
    pub fn send<'a>(&mut self, client: u32, payload: impl Into<MessagePayload<'a>>) {
        self.handle("send", Event::message(ClientId(client), payload));
    }

    /// Lets time pass. Each timer that comes due meanwhile fires at its time.
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        self.check_faults();
        let until = self.0.now() + time;
        loop {
            match self.0.advance(until) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.fail(format_args!("advance: {error}")),
            }
        }
    }

    /// Takes the next message that a client received, if there is one.
    #[track_caller]
    pub fn receive(&mut self, client: u32) -> Option<Received> {
        self.check_faults();
        let (at, payload) = self.0.take_message(ClientId(client))?;
        Some(Received { at, payload })
    }

    /// Takes the next message that a client received.
    ///
    /// # Panics
    ///
    /// If it is another one, or there is none.
    #[track_caller]
    pub fn expect<'a>(&mut self, client: u32, payload: impl Into<MessagePayload<'a>>) {
        self.check_faults();
        self.expect_one(ClientId(client), payload.into());
    }

    /// Takes the next message of each client that is connected.
    ///
    /// # Panics
    ///
    /// If nobody is connected, or any of them received another message, or none.
    #[track_caller]
    pub fn expect_all<'a>(&mut self, payload: impl Into<MessagePayload<'a>>) {
        self.check_faults();
        let payload = payload.into();
        let clients: Vec<_> = self.0.clients().collect();
        if clients.is_empty() {
            self.fail(format_args!(
                "nobody is connected who could receive {}",
                Literal(payload).shortened()
            ));
        }
        for client in clients {
            self.expect_one(client, payload);
        }
    }

    /// Checks that all messages of all clients were taken.
    ///
    /// # Panics
    ///
    /// If there is one that was not.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.check_faults();
        if !self.0.messages.is_empty() {
            self.fail(format_args!("expected nothing{}", self.unread(|_| true)));
        }
    }

    /// Takes the earliest fault that was not taken yet.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[track_caller]
    pub fn expect_fault(&mut self) -> Fault {
        match self.0.faults.pop_front() {
            Some(fault) => fault,
            None => self.fail(format_args!(
                "expected a fault, but the room has not failed"
            )),
        }
    }

    /// The present room time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// The latest thousand lines that the room printed, if the test has no logger of its own.
    pub fn printed(&self) -> impl Iterator<Item = &str> {
        self.0.printed.lines()
    }

    /// The room itself: its clients, its figures, whether it is closed.
    #[must_use]
    pub fn room(&self) -> &Room {
        self.0.room()
    }

    #[track_caller]
    fn handle(&mut self, what: &str, event: Event<'_>) {
        self.check_faults();
        if let Err(error) = self.0.handle(event) {
            let client = event.client();
            self.fail(format_args!("{what} of client {client}: {error}"));
        }
    }

    #[track_caller]
    fn expect_one(&mut self, client: ClientId, expected: MessagePayload<'_>) {
        let Some((at, received)) = self.0.take_message(client) else {
            self.fail(format_args!(
                "client {client} received nothing more\nexpected {}",
                Literal(expected).shortened()
            ));
        };
        if received.as_payload() != expected {
            let mut difference = String::new();
            // A string takes everything.
            let _ = write_difference(&mut difference, expected, received.as_payload());
            self.fail(format_args!(
                "client {client} received something else, at {}\n{difference}{}",
                Time(at),
                self.unread(|other| other == client)
            ));
        }
    }

    /// The messages that some clients have received and the test has not taken, for a panic's message.
    fn unread(&self, is_shown: impl Fn(ClientId) -> bool) -> String {
        const SHOWN: usize = 20;
        let mut text = String::new();
        let unread = self.0.messages.iter().filter_map(|message| {
            let client = message.clients.iter().find(|client| is_shown(**client));
            client.map(|_| message)
        });
        for (index, message) in unread.enumerate() {
            if index == SHOWN {
                text.push_str("\n  …");
                break;
            }
            let clients: Vec<_> = message.clients.iter().map(ToString::to_string).collect();
            let payload = Literal(message.payload.as_payload());
            let heading = if index == 0 { "\nnot taken:" } else { "" };
            let _ = write!(
                text,
                "{heading}\n  @ {}  {} < {}",
                Time(message.at),
                clients.join(", "),
                payload.shortened()
            );
        }
        text
    }

    /// # Panics
    ///
    /// If there was a fault that the test has not taken.
    #[track_caller]
    fn check_faults(&self) {
        if let Some(fault) = self.0.faults.front() {
            self.fail(format_args!("{}", WithSources(fault)));
        }
    }

    #[track_caller]
    fn fail(&self, message: fmt::Arguments<'_>) -> ! {
        let mut printed = String::new();
        // A string takes everything.
        let _ = write_printed(&mut printed, &self.0.printed);
        panic!("{message}{printed}")
    }
}

/// Panics if there was a fault that the test has not taken, unless the test has failed already.
impl Drop for TestRoom {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check_faults();
        }
    }
}

impl fmt::Debug for TestRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRoom")
            .field("room", self.room())
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
