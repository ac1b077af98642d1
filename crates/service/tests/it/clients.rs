//! The traits cannot refuse an event, so every one is handed to the guest.

use crate::{
    for_both,
    support::{build, factory, number},
};

/// Says who connects; 100 and 200 more for disconnects and texts.
const NAMES: &[(&str, &str)] = &[
    ("connect", "(call $say (local.get 0))"),
    (
        "disconnect",
        "(call $say (i32.add (i32.const 100) (local.get 0)))",
    ),
    (
        "message",
        "(call $say (i32.add (i32.const 200) (local.get 0)))",
    ),
];

for_both! {
    fn clients_have_any_id<S>() {
        let (mut service, context) = build::<S>(&factory(NAMES));
        for client in [0, 1, i32::MAX as u32, 1 << 31, u32::MAX] {
            service.connect(client);
            service.text(client, "hello");
            service.disconnect(client);
            let sent = [client, client.wrapping_add(200), client.wrapping_add(100)];
            assert_eq!(context.take(), sent.map(number));
        }
    }
}

for_both! {
    fn events_that_fit_no_connect_are_handed_on<S>() {
        let (mut service, context) = build::<S>(&factory(NAMES));
        service.text(1, "before its connect");
        service.disconnect(1);
        service.connect(2);
        service.connect(2);
        service.disconnect(2);
        service.disconnect(2);
        service.text(2, "after its disconnect");
        assert_eq!(context.take(), [201, 101, 2, 2, 102, 102, 202].map(number));
    }
}

for_both! {
    fn there_may_be_any_number_of_clients<S>() {
        let (mut service, context) = build::<S>(&factory(NAMES));
        for client in 1..=5000 {
            service.connect(client);
            assert_eq!(context.take(), [number(client)]);
        }
    }
}
