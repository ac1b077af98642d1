//! The traits of `stateroom` 0.2, as `stateroom-wasm-host` 0.2.9 implements them.

pub use crate::{WasmHostFactory, WasmRuntimeError};

use crate::{context::Context, factory::Settings, service::Service};
use stateroom_0_2::{
    ClientId, MessageRecipient, StateroomContext, StateroomService, StateroomServiceFactory,
};
use stateroom_wasmi_host as host;
use stateroom_wasmi_host::{Event, Module, OutputMessage, Room};
use std::sync::Arc;

/// A [`StateroomService`] that is a room of a WebAssembly module.
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
        context: &Arc<impl StateroomContext + Send + Sync + 'static>,
    ) -> anyhow::Result<Self> {
        let context = Shared(context.clone());
        Service::new(room_id, module, Settings::DEFAULT, context).map(Self::begun)
    }

    /// Its room, with figures and the last fault.
    #[must_use]
    pub const fn room(&self) -> &Room {
        self.0.room()
    }

    /// Sends what the guest sent while it was initialised.
    fn begun(mut service: Service) -> Self {
        service.drive();
        Self(service)
    }
}

impl StateroomService for WasmHost {
    fn connect(&mut self, client: ClientId) {
        self.0.handle(Event::Connect(host::ClientId(client.into())));
    }

    fn disconnect(&mut self, client: ClientId) {
        self.0
            .handle(Event::Disconnect(host::ClientId(client.into())));
    }

    fn message(&mut self, client: ClientId, message: &str) {
        self.0
            .handle(Event::message(host::ClientId(client.into()), message));
    }

    fn binary(&mut self, client: ClientId, message: &[u8]) {
        self.0
            .handle(Event::message(host::ClientId(client.into()), message));
    }

    fn timer(&mut self) {
        self.0.timer();
    }
}

impl<C: StateroomContext + Send + Sync + 'static> StateroomServiceFactory<C> for WasmHostFactory {
    type Service = WasmHost;
    type Error = anyhow::Error;

    fn build(&self, room_id: &str, context: C) -> Result<Self::Service, Self::Error> {
        self.service(room_id, Shared(Arc::new(context)))
            .map(WasmHost::begun)
    }
}

struct Shared<C>(Arc<C>);

impl<C: StateroomContext + Send + Sync> Context for Shared<C> {
    fn send(&self, message: OutputMessage<'_>) {
        let recipient = match message.recipient {
            host::MessageRecipient::Broadcast => MessageRecipient::Broadcast,
            host::MessageRecipient::Client(client) => MessageRecipient::Client(client.0.into()),
            host::MessageRecipient::EveryoneExcept(client) => {
                MessageRecipient::EveryoneExcept(client.0.into())
            }
        };
        match message.payload {
            host::MessagePayload::Text(text) => self.0.send_message(recipient, text),
            host::MessagePayload::Bytes(bytes) => self.0.send_binary(recipient, bytes),
        }
    }

    /// Zero would cancel it, so a timer that is to fire at once is set to a millisecond.
    fn set_timer(&self, ms_delay: u32) {
        self.0.set_timer(ms_delay.max(1));
    }

    fn cancel_timer(&self) {
        self.0.set_timer(0);
    }
}
