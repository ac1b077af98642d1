//! This project's core crate: a room driven directly, or through a `Host`.

use crate::runtime::{Event, Module, OutputSink, Payload, Recipient, Room, Runtime};
use anyhow::anyhow;
use core::{convert::Infallible, time::Duration};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Compilation, FaultPolicy, Host, Instant, Limits, LoadOptions,
    ManualClock, MessagePayload, MessageRecipient, OutputMessage, PayloadBuffer, RoomKey,
    RoomOptions, SendError, Transport,
};
use std::sync::Arc;

/// The crate under test, with a server's limits by default.
#[derive(Clone, Copy)]
pub struct WasmiHost {
    pub limits: Limits,
    pub compilation: Compilation,
    pub payload_buffer: PayloadBuffer,
    pub on_fault: FaultPolicy,
    /// Whether the room is driven through a [`Host`], or directly.
    pub in_host: bool,
}

impl WasmiHost {
    pub fn room() -> Self {
        Self {
            limits: Limits::default(),
            compilation: Compilation::Lazy,
            payload_buffer: PayloadBuffer::Auto,
            on_fault: FaultPolicy::Close,
            in_host: false,
        }
    }

    pub fn host() -> Self {
        Self {
            in_host: true,
            ..Self::room()
        }
    }

    pub fn without_fuel(mut self) -> Self {
        self.limits.max_fuel_per_event = None;
        self
    }

    pub fn with_slices_of(mut self, fuel: u64) -> Self {
        self.limits.fuel_per_slice = fuel;
        self
    }

    pub fn with_payload_buffer(mut self, payload_buffer: PayloadBuffer) -> Self {
        self.payload_buffer = payload_buffer;
        self
    }

    /// As the JIT host 0.2.9 does after a fault.
    pub fn that_continues(mut self) -> Self {
        self.on_fault = FaultPolicy::Continue;
        self
    }

    pub fn with_rollback(mut self) -> Self {
        self.on_fault = FaultPolicy::Rollback;
        self
    }

    pub fn with_compilation(mut self, compilation: Compilation) -> Self {
        self.compilation = compilation;
        self
    }
}

impl Runtime for WasmiHost {
    fn load(&self, wasm: &[u8]) -> anyhow::Result<Box<dyn Module>> {
        let options = LoadOptions::from(self.compilation)
            .payload_buffer(self.payload_buffer)
            .snapshots(self.on_fault == FaultPolicy::Rollback);
        let module = stateroom_wasmi_host::Module::load_with(wasm, &self.limits, options)?;
        Ok(match self.in_host {
            true => Box::new(HostedModule(module, self.on_fault)),
            false => Box::new(DirectModule(module, self.on_fault)),
        })
    }
}

struct DirectModule(stateroom_wasmi_host::Module, FaultPolicy);

impl Module for DirectModule {
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>> {
        let Self(module, on_fault) = self;
        let options = RoomOptions::new().on_fault(*on_fault);
        let room = stateroom_wasmi_host::Room::new(module, id, options)?;
        let mut room = DirectRoom {
            room,
            sink,
            now: Instant::ZERO,
            deadline: None,
        };
        room.run_until_idle();
        match room.room.fault() {
            Some(fault) => Err(anyhow!("{fault}")),
            None => Ok(Box::new(room)),
        }
    }
}

/// A room without a host.
///
/// Its time advances by one nanosecond per event. So no timer fires unasked, setting a timer always
/// changes the deadline, and the guest's milliseconds are the deadline minus now.
struct DirectRoom {
    room: stateroom_wasmi_host::Room,
    sink: Arc<dyn OutputSink>,
    now: Instant,
    deadline: Option<Instant>,
}

impl Room for DirectRoom {
    fn handle(&mut self, event: Event<'_>) {
        self.now = self.now + Duration::from_nanos(1);
        // A closed room refuses events and sends nothing; the outputs are what is compared.
        match event {
            Event::Connect(client) => {
                let _ = self.room.handle_event(
                    self.now,
                    stateroom_wasmi_host::Event::Connect(ClientId(client)),
                );
            }
            Event::Disconnect(client) => {
                let event = stateroom_wasmi_host::Event::Disconnect(ClientId(client));
                let _ = self.room.handle_event(self.now, event);
            }
            Event::Message(client, payload) => {
                let event = stateroom_wasmi_host::Event::Message(ClientId(client), payload.into());
                let _ = self.room.handle_event(self.now, event);
            }
            Event::Timer => {
                if let Some(deadline) = self.deadline.take() {
                    self.now = self.now.max(deadline);
                    self.room.handle_timeout(self.now);
                }
            }
        }
        self.run_until_idle();
    }

    fn trim(&mut self) {
        self.room.trim();
    }

    fn fault(&self) -> Option<String> {
        self.room.fault().map(ToString::to_string)
    }
}

impl DirectRoom {
    /// Runs the room to the end of its event and forwards its outputs.
    fn run_until_idle(&mut self) {
        loop {
            while let Some(output) = self.room.poll_output() {
                let Some(message) = output.message() else {
                    continue;
                };
                self.sink
                    .message(message.recipient.into(), message.payload.into());
            }
            if !self.room.has_work(self.now) {
                break;
            }
            self.room.resume(self.now);
        }
        let deadline = self.room.poll_timeout();
        if deadline != self.deadline {
            self.deadline = deadline;
            self.sink.timer(deadline.map(|deadline| {
                let delay = deadline.saturating_duration_since(self.now);
                u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)
            }));
        }
    }
}

/// A module each of whose rooms has a host of its own.
struct HostedModule(stateroom_wasmi_host::Module, FaultPolicy);

impl Module for HostedModule {
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>> {
        let Self(module, on_fault) = self;
        let host = Host::new(ManualClock::new(), SinkTransport(sink));
        let mut host = host.with_fault_policy(*on_fault);
        let key = host.open(id, module)?;
        let mut room = HostedRoom { host, key };
        room.poll();
        Ok(Box::new(room))
    }
}

struct HostedRoom {
    host: Host<ManualClock, SinkTransport>,
    key: RoomKey,
}

impl Room for HostedRoom {
    fn handle(&mut self, event: Event<'_>) {
        let event = match event {
            Event::Connect(client) => stateroom_wasmi_host::Event::Connect(ClientId(client)),
            Event::Disconnect(client) => stateroom_wasmi_host::Event::Disconnect(ClientId(client)),
            Event::Message(client, payload) => {
                stateroom_wasmi_host::Event::Message(ClientId(client), payload.into())
            }
            Event::Timer => {
                let deadline = self.host.poll_timeout().unwrap_or_default();
                let clock = self.host.clock();
                clock.set(clock.now().max(deadline));
                self.poll();
                return;
            }
        };
        let _ = self.host.enqueue(self.key, event);
        self.poll();
    }
}

impl HostedRoom {
    /// Runs the event, and what its timer does at once.
    fn poll(&mut self) {
        self.host.poll(Budget::UNLIMITED);
        let now = self.host.clock().now();
        while self.host.poll_timeout().is_some_and(|due| due <= now) {
            self.host.poll(Budget::UNLIMITED);
        }
    }
}

struct SinkTransport(Arc<dyn OutputSink>);

impl Transport for SinkTransport {
    type Error = Infallible;

    fn send(
        &mut self,
        _: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<Infallible>> {
        self.0
            .message(message.recipient.into(), message.payload.into());
        Ok(())
    }
}

impl<'a> From<Payload<'a>> for MessagePayload<'a> {
    fn from(payload: Payload<'a>) -> Self {
        match payload {
            Payload::Text(text) => Self::Text(text),
            Payload::Binary(bytes) => Self::Bytes(bytes),
        }
    }
}

impl<'a> From<MessagePayload<'a>> for Payload<'a> {
    fn from(payload: MessagePayload<'a>) -> Self {
        match payload {
            MessagePayload::Text(text) => Self::Text(text),
            MessagePayload::Bytes(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<MessageRecipient> for Recipient {
    fn from(recipient: MessageRecipient) -> Self {
        match recipient {
            MessageRecipient::Broadcast => Self::Everyone,
            MessageRecipient::Client(client) => Self::Client(client.0),
            MessageRecipient::EveryoneExcept(client) => Self::EveryoneExcept(client.0),
        }
    }
}
