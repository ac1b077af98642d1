//! A room in virtual time, with what its clients have received and nobody has taken.

use crate::{options::TestOptions, printed::Printed};
use stateroom_wasmi_host::{
    ClientId, Event, EventError, Fault, FaultPolicy, Instant, Limits, LoadError, LoadOptions,
    MessageRecipient, Module, OpenError, Output, OutputMessage, OwnedPayload, Room, RoomOptions,
    UpgradeError, WithSources,
};
use std::{
    collections::{BTreeSet, VecDeque},
    error::Error,
    fmt, mem,
    task::Poll,
};

/// How often the timer of a room may fire. An hour at 60 Hz is two thirds of it.
const MAX_TIMER_EVENTS: u64 = 300_000;

/// Bytes of messages that nobody has taken.
const MAX_UNREAD_BYTES: usize = 64 << 20;

/// Runs each event to its end, and time from one deadline of the room to the next.
pub(crate) struct RoomDriver {
    room: Room,
    now: Instant,
    /// The clients that the room was told of. Others are sent nothing.
    joined: BTreeSet<ClientId>,
    pub(crate) messages: VecDeque<Message>,
    unread_bytes: usize,
    pub(crate) faults: VecDeque<Fault>,
    faults_seen: u64,
    timer_events: u64,
    pub(crate) printed: Printed,
    max_fuel: u64,
}

/// A message of the room, and who received it and has not taken it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) at: Instant,
    /// At least one; in order.
    pub(crate) clients: Vec<ClientId>,
    pub(crate) payload: OwnedPayload,
}

/// Why a room cannot be played any further.
#[derive(Debug)]
pub(crate) enum DriverError {
    Load(LoadError),
    Open(OpenError),
    Refused(EventError),
    Upgrade(UpgradeError),
    TooMuchFuel { limit: u64 },
    TooManyTimerEvents,
    TooManyUnreadBytes,
}

impl RoomDriver {
    /// Loads the module and opens a room of it.
    pub(crate) fn open(
        wasm: &[u8],
        room_id: &str,
        options: &TestOptions,
    ) -> Result<Self, DriverError> {
        let mut limits = options.limits;
        // Without a bound there would be no end to an event that has none.
        let max_fuel = limits.max_fuel_per_event;
        limits.max_fuel_per_event = max_fuel.or(Limits::new().max_fuel_per_event);
        let module = load(wasm, &limits, options.on_fault)?;
        let room_options = RoomOptions::new()
            .seed(options.seed)
            .unix_time_at_zero(options.unix_time_at_zero)
            .on_fault(options.on_fault);
        let mut printed = Printed::start();
        let room = Room::new(&module, room_id, room_options).map_err(DriverError::Open)?;
        printed.collect();
        let mut driver = Self {
            room,
            now: Instant::ZERO,
            joined: BTreeSet::new(),
            messages: VecDeque::new(),
            unread_bytes: 0,
            faults: VecDeque::new(),
            faults_seen: 0,
            timer_events: 0,
            printed,
            max_fuel: options.max_fuel,
        };
        driver.settle()?;
        Ok(driver)
    }

    pub(crate) const fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// The clients that the room knows to be connected, in order.
    pub(crate) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.joined.iter().copied()
    }

    /// Gives the room an event, which it handles to the end.
    pub(crate) fn handle(&mut self, event: Event<'_>) -> Result<(), DriverError> {
        self.printed.skip();
        self.room
            .handle_event(self.now, event)
            .map_err(DriverError::Refused)?;
        self.settle()
    }

    /// Lets the room go on with another module, or the same, to which its state passes.
    pub(crate) fn upgrade(&mut self, wasm: Option<&[u8]>) -> Result<(), DriverError> {
        let present = self.room.module();
        let module = match wasm {
            Some(wasm) => load(wasm, &present.limits().clone(), self.room.on_fault())?,
            None => present.clone(),
        };
        self.printed.skip();
        self.room
            .begin_upgrade(&module)
            .map_err(DriverError::Upgrade)?;
        let upgraded = loop {
            match self.room.poll_upgrade() {
                Poll::Ready(upgraded) => break upgraded,
                Poll::Pending => self.room.resume(self.now),
            }
        };
        self.printed.collect();
        upgraded.map_err(DriverError::Upgrade)?;
        self.settle()
    }

    /// Lets time pass up to the room's next deadline. If that is later than `until`, or there is none,
    /// time passes up to `until`, and this returns false.
    pub(crate) fn advance(&mut self, until: Instant) -> Result<bool, DriverError> {
        let Some(deadline) = self.room.poll_timeout().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return Ok(false);
        };
        self.timer_events += 1;
        if self.timer_events > MAX_TIMER_EVENTS {
            return Err(DriverError::TooManyTimerEvents);
        }
        self.now = self.now.max(deadline);
        self.printed.skip();
        self.room.handle_timeout(self.now);
        self.settle()?;
        Ok(true)
    }

    /// Takes all messages.
    pub(crate) fn take_messages(&mut self) -> VecDeque<Message> {
        self.unread_bytes = 0;
        mem::take(&mut self.messages)
    }

    /// Takes the next message of a client.
    pub(crate) fn take_message(&mut self, client: ClientId) -> Option<(Instant, OwnedPayload)> {
        let is_recipient = |message: &Message| message.clients.contains(&client);
        let index = self.messages.iter().position(is_recipient)?;
        let message = &mut self.messages[index];
        if message.clients.len() > 1 {
            message.clients.retain(|other| *other != client);
            return Some((message.at, message.payload.clone()));
        }
        let message = self.messages.remove(index)?;
        self.unread_bytes -= message.bytes();
        Some((message.at, message.payload))
    }

    /// Takes the room's outputs, and lets it go on until it has nothing left to do at this time.
    fn settle(&mut self) -> Result<(), DriverError> {
        loop {
            self.take_fault();
            while let Some(output) = self.room.poll_output() {
                match output {
                    Output::Joined(client) => {
                        self.joined.insert(client);
                    }
                    Output::Left(client) => {
                        self.joined.remove(&client);
                    }
                    Output::Message(message) => {
                        let message = Message::new(message, self.now, &self.joined);
                        if message.clients.is_empty() {
                            continue;
                        }
                        self.unread_bytes += message.bytes();
                        self.messages.push_back(message);
                        if self.unread_bytes > MAX_UNREAD_BYTES {
                            return Err(DriverError::TooManyUnreadBytes);
                        }
                    }
                    _ => {}
                }
            }
            self.printed.collect();
            if self.room.fuel_used() > self.max_fuel {
                let limit = self.max_fuel;
                return Err(DriverError::TooMuchFuel { limit });
            }
            if !self.room.is_runnable() {
                return Ok(());
            }
            self.room.resume(self.now);
        }
    }

    /// A call of the room fails at most once.
    fn take_fault(&mut self) {
        let faults = self.room.stats().faults;
        if faults > self.faults_seen {
            self.faults_seen = faults;
            self.faults.extend(self.room.last_fault().cloned());
        }
    }
}

/// For snapshots if the policy needs them, or the module has an export that does.
fn load(wasm: &[u8], limits: &Limits, on_fault: FaultPolicy) -> Result<Module, DriverError> {
    let options = LoadOptions::new()
        .simd(true)
        .snapshots(on_fault == FaultPolicy::Rollback);
    let load = |options| Module::load_with(wasm, limits, options).map_err(DriverError::Load);
    let module = load(options)?;
    match module.has_save() || module.has_load() {
        true => load(options.snapshots(true)),
        false => Ok(module),
    }
}

impl Message {
    fn new(message: OutputMessage<'_>, at: Instant, joined: &BTreeSet<ClientId>) -> Self {
        let clients = match message.recipient {
            MessageRecipient::Client(client) => joined.get(&client).copied().into_iter().collect(),
            recipient => {
                let is_recipient = |client: &ClientId| recipient.includes(*client);
                joined.iter().copied().filter(is_recipient).collect()
            }
        };
        Self {
            at,
            clients,
            payload: message.payload.to_owned(),
        }
    }

    /// About what it takes of memory.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.payload.as_payload().len()
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(error) => write!(f, "cannot load the module: {}", WithSources(error)),
            Self::Open(error) => write!(f, "cannot open the room: {error}"),
            Self::Refused(error) => error.fmt(f),
            Self::Upgrade(error) => write!(f, "the room does not go on: {}", WithSources(error)),
            Self::TooMuchFuel { limit } => write!(
                f,
                "the room has used more than {limit} units of fuel in all, the limit of a test"
            ),
            Self::TooManyTimerEvents => write!(
                f,
                "the room's timer has fired more than {MAX_TIMER_EVENTS} times, the limit of a test"
            ),
            Self::TooManyUnreadBytes => write!(
                f,
                "the room has sent more than {MAX_UNREAD_BYTES} bytes that the test has not taken"
            ),
        }
    }
}

impl Error for DriverError {}
