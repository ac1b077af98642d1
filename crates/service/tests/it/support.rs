//! Contexts that record, and guests by hand.

use stateroom_wasmi_service::{Limits, LoadOptions, Module, WasmHostFactory};
use std::sync::{Arc, Mutex};

/// What a context was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Text(To, String),
    Bytes(To, Vec<u8>),
    Timer(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    All,
    Client(u32),
    AllBut(u32),
}

pub fn text(to: To, text: &str) -> Asked {
    Asked::Text(to, text.to_owned())
}

/// A context of either version.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Asked>>>);

impl Recorder {
    /// What came since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn push(&self, asked: Asked) {
        self.0.lock().unwrap().push(asked);
    }
}

/// A service of either version, with its context.
pub trait Service: Sized {
    fn build(factory: &WasmHostFactory) -> anyhow::Result<(Self, Recorder)>;
    fn connect(&mut self, client: u32);
    fn disconnect(&mut self, client: u32);
    fn text(&mut self, client: u32, text: &str);
    fn bytes(&mut self, client: u32, bytes: &[u8]);
    fn timer(&mut self);
    fn room(&self) -> &stateroom_wasmi_service::Room;
}

pub fn build<S: Service>(factory: &WasmHostFactory) -> (S, Recorder) {
    S::build(factory).expect("the room is built")
}

/// As a program on `stateroom` 0.2.8 does.
pub struct V0_2(stateroom_wasmi_service::v0_2::WasmHost);

/// As a program on `stateroom` 0.4.4 does.
pub struct V0_4(stateroom_wasmi_service::WasmHost, Arc<Recorder>);

mod v0_2 {
    use super::{Asked, Recorder, Service, To, V0_2, WasmHostFactory};
    use stateroom_0_2::{
        MessageRecipient, StateroomContext, StateroomService, StateroomServiceFactory,
    };

    impl Service for V0_2 {
        fn build(factory: &WasmHostFactory) -> anyhow::Result<(Self, Recorder)> {
            let context = Recorder::default();
            let host = StateroomServiceFactory::build(factory, "lobby", context.clone())?;
            Ok((Self(host), context))
        }

        fn connect(&mut self, client: u32) {
            self.0.connect(client.into());
        }

        fn disconnect(&mut self, client: u32) {
            self.0.disconnect(client.into());
        }

        fn text(&mut self, client: u32, text: &str) {
            self.0.message(client.into(), text);
        }

        fn bytes(&mut self, client: u32, bytes: &[u8]) {
            self.0.binary(client.into(), bytes);
        }

        fn timer(&mut self) {
            self.0.timer();
        }

        fn room(&self) -> &stateroom_wasmi_service::Room {
            self.0.room()
        }
    }

    impl StateroomContext for Recorder {
        fn send_message(&self, recipient: impl Into<MessageRecipient>, message: &str) {
            self.push(Asked::Text(recipient.into().into(), message.to_owned()));
        }

        fn send_binary(&self, recipient: impl Into<MessageRecipient>, message: &[u8]) {
            self.push(Asked::Bytes(recipient.into().into(), message.to_owned()));
        }

        fn set_timer(&self, ms_delay: u32) {
            self.push(Asked::Timer(ms_delay));
        }
    }

    impl From<MessageRecipient> for To {
        fn from(recipient: MessageRecipient) -> Self {
            match recipient {
                MessageRecipient::Broadcast => Self::All,
                MessageRecipient::Client(client) => Self::Client(client.into()),
                MessageRecipient::EveryoneExcept(client) => Self::AllBut(client.into()),
            }
        }
    }
}

mod v0_4 {
    use super::{Arc, Asked, Recorder, Service, To, V0_4, WasmHostFactory};
    use stateroom_0_4::{
        MessagePayload, MessageRecipient, StateroomContext, StateroomService,
        StateroomServiceFactory,
    };

    impl Service for V0_4 {
        fn build(factory: &WasmHostFactory) -> anyhow::Result<(Self, Recorder)> {
            let context = Arc::new(Recorder::default());
            let mut host = StateroomServiceFactory::build(factory, "lobby", context.clone())?;
            assert_eq!(context.take(), [], "nothing is sent before `init`");
            host.init(&*context);
            let recorder = Recorder::clone(&context);
            Ok((Self(host, context), recorder))
        }

        fn connect(&mut self, client: u32) {
            self.0.connect(client.into(), &*self.1);
        }

        fn disconnect(&mut self, client: u32) {
            self.0.disconnect(client.into(), &*self.1);
        }

        fn text(&mut self, client: u32, text: &str) {
            self.0.message(client.into(), text.into(), &*self.1);
        }

        fn bytes(&mut self, client: u32, bytes: &[u8]) {
            self.0.message(client.into(), bytes.into(), &*self.1);
        }

        fn timer(&mut self) {
            self.0.timer(&*self.1);
        }

        fn room(&self) -> &stateroom_wasmi_service::Room {
            self.0.room()
        }
    }

    impl StateroomContext for Recorder {
        fn send_message(
            &self,
            recipient: impl Into<MessageRecipient>,
            message: impl Into<MessagePayload>,
        ) {
            let to = recipient.into().into();
            self.push(match message.into() {
                MessagePayload::Text(text) => Asked::Text(to, text),
                MessagePayload::Bytes(bytes) => Asked::Bytes(to, bytes),
            });
        }

        fn set_timer(&self, ms_delay: u32) {
            self.push(Asked::Timer(ms_delay));
        }
    }

    impl From<MessageRecipient> for To {
        fn from(recipient: MessageRecipient) -> Self {
            match recipient {
                MessageRecipient::Broadcast => Self::All,
                MessageRecipient::Client(client) => Self::Client(client.into()),
                MessageRecipient::EveryoneExcept(client) => Self::AllBut(client.into()),
            }
        }
    }
}

/// A bundled room.
pub fn bundled(name: &str) -> WasmHostFactory {
    WasmHostFactory::new(bundled_path(name)).expect("a bundled room loads")
}

pub fn bundled_with(name: &str, limits: &Limits) -> WasmHostFactory {
    let wasm = std::fs::read(bundled_path(name)).expect("a bundled room");
    let module = Module::load(&wasm, limits).expect("a bundled room loads");
    WasmHostFactory::new_with_shared_module(module)
}

fn bundled_path(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rooms/wasm");
    format!("{folder}/{name}.wasm")
}

/// A guest of ABI 0.2 with these bodies of its handlers. `$say` sends the number to everybody, as four
/// bytes.
pub fn guest(handlers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = r#"(module
        (import "env" "send_message" (func $send_message (param i32 i32 i32)))
        (import "env" "send_binary" (func $send_binary (param i32 i32 i32)))
        (import "env" "set_timer" (func $set_timer (param i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock_time_get (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (global $count (mut i32) (i32.const 0))
        (func (export "jam_malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "jam_free") (param i32 i32))
        (func $say (param i32)
            (i32.store (i32.const 16) (local.get 0))
            (call $send_binary (i32.const 0) (i32.const 16) (i32.const 4)))
        (func $count (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (call $say (global.get $count)))"#
        .to_owned();
    for (name, parameters) in [
        ("initialize", "i32 i32"),
        ("connect", "i32"),
        ("disconnect", "i32"),
        ("timer", ""),
        ("message", "i32 i32 i32"),
        ("binary", "i32 i32 i32"),
    ] {
        let body = handlers
            .iter()
            .find(|(handler, _)| *handler == name)
            .map_or("", |(_, body)| body);
        text += &format!("(func (export \"{name}\") (param {parameters}) {body})");
    }
    wat::parse_str(text + ")").expect("the guest is valid")
}

pub fn factory(handlers: &[(&str, &str)]) -> WasmHostFactory {
    WasmHostFactory::from_bytes(&guest(handlers)).expect("the guest loads")
}

pub fn factory_with(handlers: &[(&str, &str)], limits: &Limits) -> WasmHostFactory {
    let options = LoadOptions::new().snapshots(true);
    let module = Module::load_with(&guest(handlers), limits, options).expect("the guest loads");
    WasmHostFactory::new_with_shared_module(module)
}

/// What `$say` sends.
pub fn number(number: u32) -> Asked {
    Asked::Bytes(To::All, number.to_le_bytes().to_vec())
}

/// The same test for the services of both versions.
#[macro_export]
macro_rules! for_both {
    ($(#[doc = $doc:literal])* fn $name:ident<$service:ident>() $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "not all tests need all of it")]
            use super::*;

            fn run<$service: $crate::support::Service>() $body

            #[test]
            fn v0_2() {
                run::<$crate::support::V0_2>();
            }

            #[test]
            fn v0_4() {
                run::<$crate::support::V0_4>();
            }
        }
    };
}
