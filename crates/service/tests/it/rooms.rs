//! Bundled rooms of both ABIs, behind the traits of both versions.

use crate::{
    for_both,
    support::{Asked, To, build, bundled, factory, text},
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

for_both! {
    fn chat<S>() {
        for name in ["chat-rust-0.2", "chat-rust-0.4"] {
            let (mut service, context) = build::<S>(&bundled(name));
            service.connect(1);
            service.connect(2);
            service.text(2, "/nick ada");
            service.text(2, "hello");
            service.disconnect(1);
            let welcome = |id: u32| {
                let welcome = format!("Welcome, guest{id}. Commands: /nick NAME, /who.");
                [
                    text(To::Client(id), &welcome),
                    text(To::AllBut(id), &format!("guest{id} joined.")),
                ]
            };
            let mut expected = [welcome(1), welcome(2)].concat();
            expected.extend([
                text(To::All, "guest2 is now ada."),
                text(To::All, "ada: hello"),
                text(To::AllBut(1), "guest1 left."),
            ]);
            assert_eq!(context.take(), expected, "{name}");
        }
    }
}

for_both! {
    fn bytes_are_not_texts<S>() {
        for name in ["echo-rust-0.2", "echo-rust-0.4", "echo-c"] {
            let (mut service, context) = build::<S>(&bundled(name));
            service.connect(7);
            service.bytes(7, &[0, 255]);
            service.text(7, "\u{1f980}");
            let to = To::Client(7);
            let expected = [Asked::Bytes(to, vec![0, 255]), text(to, "\u{1f980}")];
            assert_eq!(context.take(), expected, "{name}");
        }
    }
}

for_both! {
    fn guests_know_the_wall_time<S>() {
        let (mut service, context) = build::<S>(&factory(&[(
            "connect",
            "(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 32)))
            (call $send_binary (i32.const 0) (i32.const 32) (i32.const 8))",
        )]));
        let before = SystemTime::now();
        service.connect(1);
        let [Asked::Bytes(_, bytes)] = &context.take()[..] else {
            panic!("the guest sends its time");
        };
        let nanos = u64::from_le_bytes(bytes[..].try_into().unwrap());
        let time = UNIX_EPOCH + Duration::from_nanos(nanos);
        // The system's two clocks may have drifted apart since the room was built.
        let drift = Duration::from_secs(60);
        assert!((before - drift..SystemTime::now() + drift).contains(&time));
    }
}

for_both! {
    fn rooms_have_different_random_numbers_unless_seeded<S>() {
        let roll = |seed| {
            let factory = bundled("dice-rust-0.4-wasi").seed(seed);
            let (mut service, context) = build::<S>(&factory);
            service.connect(1);
            service.text(1, "100d1000");
            context.take()
        };
        assert_eq!(roll(Some(1)), roll(Some(1)));
        assert_ne!(roll(Some(1)), roll(Some(2)));
        assert_ne!(roll(None), roll(None));
    }
}

/// What the servers of the published crates ask of a factory and its services.
#[test]
fn the_types_are_what_servers_ask_for() {
    fn server_0_4(_: impl stateroom_0_4::StateroomServiceFactory) {}
    fn server_0_2<J, C>(
        _: impl stateroom_0_2::StateroomServiceFactory<C, Service = J> + Send + 'static,
    ) where
        C: stateroom_0_2::StateroomContext,
        J: stateroom_0_2::StateroomService + Send + Sync + Unpin + 'static,
    {
    }
    server_0_4(bundled("echo-c"));
    server_0_2::<_, crate::support::Recorder>(bundled("echo-c"));
}
