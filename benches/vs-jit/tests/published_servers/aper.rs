//! A room on `aper-stateroom`, whose clients speak aper's protocol: binary, with the wall time in each
//! message, and with a timer.

use crate::{
    client::{
        Action::{Bytes, Connect, Text},
        Turn, play, turn,
    },
    programs::{Host, Program, Version},
};
use ::aper::connection::{MessageToClient, MessageToServer};
use aper_stateroom::{IntentEvent, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tokio_tungstenite::tungstenite::Message;

/// The intents of `guests/aper`.
#[derive(Clone, Serialize, Deserialize)]
enum Intent {
    Start {
        ms: i64,
    },
    #[allow(dead_code, reason = "the room's own")]
    Ring,
}

/// Starts the kitchen timer at a fixed time in the past, so that it is due.
fn start(ms: i64) -> Vec<u8> {
    let long_ago = Timestamp::from_timestamp_millis(1_000_000).expect("a valid time");
    let event = IntentEvent::new(None, long_ago, Intent::Start { ms });
    let message = MessageToServer::Intent {
        intent: bincode::serialize(&event).expect("it is encoded"),
        client_version: 5,
    };
    bincode::serialize(&message).expect("it is encoded")
}

fn request_state() -> Vec<u8> {
    let message = MessageToServer::RequestState { latest_version: 0 };
    bincode::serialize(&message).expect("it is encoded")
}

/// What came, without the time.
fn run(server: Version, host: Host, turns: &[Turn]) -> Vec<(u32, String)> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/aper/timer-aper.wasm");
    let received = play(Program { server, host }.serve(&module), turns);
    received
        .into_iter()
        .map(|(client, message)| {
            let Message::Binary(bytes) = message else {
                panic!("aper sends bytes");
            };
            let message: MessageToClient = bincode::deserialize(&bytes).expect("it is aper's");
            // The guest knows the wall time: it is after 2020.
            assert!(message.timestamp.timestamp() > 1_577_836_800);
            (client, format!("{:?}", message.message))
        })
        .collect()
}

#[test]
fn a_game_on_aper() {
    let turns = [
        turn(1, Connect, [(1, 1)]),
        turn(1, Bytes(request_state()), [(1, 1)]),
        turn(2, Connect, [(2, 1)]),
        // That it starts, and that it rings.
        turn(2, Bytes(start(250)), [(1, 2), (2, 2)]),
        turn(1, Bytes(start(7)), [(1, 2), (2, 2)]),
        // An intent that is refused is acknowledged.
        turn(1, Bytes(start(-1)), [(1, 1)]),
        turn(3, Connect, [(3, 1)]),
        turn(3, Bytes(request_state()), [(3, 1)]),
    ];
    let expected = run(Version::V0_4, Host::Jit, &turns);
    assert_eq!(run(Version::V0_4, Host::Wasmi, &turns), expected);
    // The JIT host of this server does not load the module, which is of ABI 0.4.
    assert_eq!(run(Version::V0_2, Host::Wasmi, &turns), expected);
}

/// Text that is not aper's makes its guest panic. The JIT host 0.4.4 then panics, too, and its server
/// serves nobody any more.
#[test]
fn a_client_that_does_not_speak_its_protocol() {
    let turns = [
        turn(1, Connect, [(1, 1)]),
        turn(2, Connect, [(2, 1)]),
        turn(2, Text("hello"), []),
        turn(2, Bytes(request_state()), [(2, 1)]),
        turn(1, Bytes(start(7)), [(1, 2), (2, 2)]),
    ];
    let received = run(Version::V0_4, Host::Wasmi, &turns);
    assert_eq!(received.len(), 7);
}
