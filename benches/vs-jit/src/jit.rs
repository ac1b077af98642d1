//! The published hosts, `stateroom-wasm-host` 0.2.9 and 0.4.4, unmodified.

use crate::runtime::{Event, Module, OutputSink, Payload, Recipient, Room, Runtime};
use anyhow::anyhow;
use std::sync::Arc;

/// The host of ABI 0.2, on wasmtime 8.
pub struct Jit02;

/// The host of ABI 0.4, on wasmtime 20.
pub struct Jit04;

/// Forwards a host's outputs to a sink.
#[derive(Clone)]
struct Context(Arc<dyn OutputSink>);

mod abi_0_2 {
    use super::{
        Arc, Context, Event, Jit02, Module, OutputSink, Payload, Recipient, Room, Runtime,
    };
    use stateroom_0_2::{
        ClientId, MessageRecipient, StateroomContext, StateroomService, StateroomServiceFactory,
    };
    use stateroom_wasm_host_0_2::{WasmHost, WasmHostFactory};

    impl Runtime for Jit02 {
        fn load(&self, wasm: &[u8]) -> anyhow::Result<Box<dyn Module>> {
            let engine = wasmtime_8::Engine::default();
            let module = wasmtime_8::Module::new(&engine, wasm)?;
            Ok(Box::new(WasmHostFactory::new_with_shared_module(
                Arc::new(engine),
                Arc::new(module),
            )))
        }
    }

    impl Module for WasmHostFactory {
        fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>> {
            Ok(Box::new(self.build(id, Context(sink))?))
        }
    }

    impl Room for WasmHost {
        fn handle(&mut self, event: Event<'_>) {
            match event {
                Event::Connect(client) => self.connect(ClientId(client)),
                Event::Disconnect(client) => self.disconnect(ClientId(client)),
                Event::Message(client, Payload::Text(text)) => self.message(ClientId(client), text),
                Event::Message(client, Payload::Binary(bytes)) => {
                    self.binary(ClientId(client), bytes)
                }
                Event::Timer => self.timer(),
            }
        }
    }

    impl StateroomContext for Context {
        fn send_message(&self, recipient: impl Into<MessageRecipient>, message: &str) {
            self.0
                .message(recipient.into().into(), Payload::Text(message));
        }

        fn send_binary(&self, recipient: impl Into<MessageRecipient>, message: &[u8]) {
            self.0
                .message(recipient.into().into(), Payload::Binary(message));
        }

        fn set_timer(&self, ms_delay: u32) {
            // The SDK documents that zero cancels it.
            self.0.timer((ms_delay > 0).then_some(ms_delay));
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
}

mod abi_0_4 {
    use super::{
        Arc, Context, Event, Jit04, Module, OutputSink, Payload, Recipient, Room, Runtime, anyhow,
    };
    use stateroom_0_4::{
        ClientId, MessagePayload, MessageRecipient, StateroomContext, StateroomService,
        StateroomServiceFactory,
    };
    use stateroom_wasm_host_0_4::{WasmHost, WasmHostFactory};

    impl Runtime for Jit04 {
        fn load(&self, wasm: &[u8]) -> anyhow::Result<Box<dyn Module>> {
            let engine = wasmtime_20::Engine::default();
            let module = wasmtime_20::Module::new(&engine, wasm)?;
            Ok(Box::new(WasmHostFactory::new_with_shared_module(
                Arc::new(engine),
                Arc::new(module),
            )))
        }
    }

    /// The host needs its context for each event, as its server passes it.
    struct Hosted {
        host: WasmHost,
        context: Arc<Context>,
    }

    impl Module for WasmHostFactory {
        fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> anyhow::Result<Box<dyn Room>> {
            let context = Arc::new(Context(sink));
            let mut host = self
                .build(id, context.clone())
                .map_err(|error| anyhow!(error))?;
            host.init(&*context);
            Ok(Box::new(Hosted { host, context }))
        }
    }

    impl Room for Hosted {
        fn handle(&mut self, event: Event<'_>) {
            let Self { host, context } = self;
            match event {
                Event::Connect(client) => host.connect(ClientId(client), &**context),
                Event::Disconnect(client) => host.disconnect(ClientId(client), &**context),
                // The host takes owned messages, as a server gets them from its socket.
                Event::Message(client, payload) => {
                    let payload = match payload {
                        Payload::Text(text) => MessagePayload::Text(text.to_owned()),
                        Payload::Binary(bytes) => MessagePayload::Bytes(bytes.to_owned()),
                    };
                    host.message(ClientId(client), payload, &**context);
                }
                Event::Timer => host.timer(&**context),
            }
        }
    }

    impl StateroomContext for Context {
        fn send_message(
            &self,
            recipient: impl Into<MessageRecipient>,
            message: impl Into<MessagePayload>,
        ) {
            let message = message.into();
            let payload = match &message {
                MessagePayload::Text(text) => Payload::Text(text),
                MessagePayload::Bytes(bytes) => Payload::Binary(bytes),
            };
            self.0.message(recipient.into().into(), payload);
        }

        fn set_timer(&self, ms_delay: u32) {
            // Zero fires at once in the published server.
            self.0.timer(Some(ms_delay));
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
}
