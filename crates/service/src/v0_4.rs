//! The traits of `stateroom` 0.4, as `stateroom-wasm-host` 0.4.4 implements them.

pub use crate::WasmHostFactory;

use crate::{context::Context, factory::Settings, service::Service};
use stateroom_0_4::{
    ClientId, MessagePayload, MessageRecipient, StateroomContext, StateroomService,
    StateroomServiceFactory,
};
use stateroom_wasmi_host as host;
use stateroom_wasmi_host::{Event, Module, OutputMessage, Room};
use std::sync::Arc;

/// A [`StateroomService`] that is a room of a WebAssembly module.
///
/// As the published host, it sends by the context that it was built with, not by those of the events.
pub struct WasmHost(Service);

impl WasmHost {
    /// Opens a room of a module, with the defaults of [`WasmHostFactory`].
    ///
    /// # Errors
    ///
    /// If the room cannot be opened, or its guest cannot be initialised.
    pub fn new(
        room_id: &str,
        module: &Module,
        context: Arc<impl StateroomContext>,
    ) -> anyhow::Result<Self> {
        Service::new(room_id, module, Settings::DEFAULT, Shared(context)).map(Self)
    }

    /// Its room, with figures and the last fault.
    #[must_use]
    pub const fn room(&self) -> &Room {
        self.0.room()
    }
}

/// The guest has been initialised by `build`, which tells whether that went well; `init` sends what it
/// sent then.
impl StateroomService for WasmHost {
    fn init(&mut self, _: &impl StateroomContext) {
        self.0.drive();
    }

    fn connect(&mut self, client: ClientId, _: &impl StateroomContext) {
        self.0.handle(Event::Connect(host::ClientId(client.0)));
    }

    fn disconnect(&mut self, client: ClientId, _: &impl StateroomContext) {
        self.0.handle(Event::Disconnect(host::ClientId(client.0)));
    }

    fn message(&mut self, client: ClientId, message: MessagePayload, _: &impl StateroomContext) {
        let client = host::ClientId(client.0);
        self.0.handle(match &message {
            MessagePayload::Text(text) => Event::message(client, text.as_str()),
            MessagePayload::Bytes(bytes) => Event::message(client, bytes.as_slice()),
        });
    }

    fn timer(&mut self, _: &impl StateroomContext) {
        self.0.timer();
    }
}

impl StateroomServiceFactory for WasmHostFactory {
    type Service = WasmHost;
    type Error = anyhow::Error;

    fn build(
        &self,
        room_id: &str,
        context: Arc<impl StateroomContext>,
    ) -> Result<Self::Service, Self::Error> {
        self.service(room_id, Shared(context)).map(WasmHost)
    }
}

struct Shared<C>(Arc<C>);

impl<C: StateroomContext> Context for Shared<C> {
    fn send(&self, message: OutputMessage<'_>) {
        let recipient = match message.recipient {
            host::MessageRecipient::Broadcast => MessageRecipient::Broadcast,
            host::MessageRecipient::Client(client) => MessageRecipient::Client(ClientId(client.0)),
            host::MessageRecipient::EveryoneExcept(client) => {
                MessageRecipient::EveryoneExcept(ClientId(client.0))
            }
        };
        match message.payload {
            host::MessagePayload::Text(text) => self.0.send_message(recipient, text),
            host::MessagePayload::Bytes(bytes) => self.0.send_message(recipient, bytes),
        }
    }

    fn set_timer(&self, ms_delay: u32) {
        self.0.set_timer(ms_delay);
    }

    /// A context of 0.4 cannot: zero fires the timer at once.
    fn cancel_timer(&self) {}
}
