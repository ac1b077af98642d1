//! The bundled rooms, of which there is one for each ABI: all programs must show clients the same.

use crate::{
    client::{
        Action::{Bytes, Close, Connect, ConnectWithToken, Text, Wait},
        Turn, play, turn,
    },
    programs::{Host, Program, Version, bundled},
};
use tokio_tungstenite::tungstenite::Message;

/// Either server with the JIT host of its version, and with the service and modules of both ABIs.
fn all_programs_agree(room: &str, turns: &[Turn]) {
    let run = |server, host, abi: &str| {
        let module = bundled(&format!("{room}-rust-{abi}"));
        play(Program { server, host }.serve(&module), turns)
    };
    let expected = run(Version::V0_4, Host::Jit, "0.4");
    assert!(!expected.is_empty());
    assert_eq!(run(Version::V0_2, Host::Jit, "0.2"), expected);
    for server in [Version::V0_2, Version::V0_4] {
        for abi in ["0.2", "0.4"] {
            let received = run(server, Host::Wasmi, abi);
            assert_eq!(
                received, expected,
                "{room} of ABI {abi} in server {server:?}"
            );
        }
    }
}

#[test]
fn chat() {
    all_programs_agree(
        "chat",
        &[
            turn(1, Connect, [(1, 1)]),
            turn(2, Connect, [(2, 1), (1, 1)]),
            turn(2, Text("/nick ada"), [(1, 1), (2, 1)]),
            turn(1, Text("hello \u{1f980}"), [(1, 1), (2, 1)]),
            turn(1, Bytes(vec![1, 2, 3]), []),
            turn(1, Text("/who"), [(1, 1)]),
            turn(1, Close, [(2, 1)]),
            turn(3, Connect, [(3, 1), (2, 1)]),
            turn(2, Text("/who"), [(2, 1)]),
        ],
    );
}

#[test]
fn echo() {
    all_programs_agree(
        "echo",
        &[
            turn(1, Connect, []),
            turn(2, Connect, []),
            turn(1, Text("hello"), [(1, 1)]),
            turn(2, Bytes(vec![0, 255]), [(2, 1)]),
            turn(1, Bytes(vec![7; 60_000]), [(1, 1)]),
            turn(2, Text("\u{1f980}"), [(2, 1)]),
        ],
    );
}

#[test]
fn counter() {
    all_programs_agree(
        "counter",
        &[
            turn(1, Connect, [(1, 1)]),
            turn(1, Text("+5"), [(1, 1)]),
            turn(2, Connect, [(2, 1)]),
            turn(2, Text("-7"), [(1, 1), (2, 1)]),
            turn(1, Text("five"), [(1, 1)]),
        ],
    );
}

#[test]
fn cursors() {
    // A text is answered, and so tells that what the client sent before was handled.
    all_programs_agree(
        "cursors",
        &[
            turn(1, Connect, []),
            turn(1, Bytes(vec![1, 2]), []),
            turn(1, Text("?"), [(1, 1)]),
            turn(2, Connect, [(2, 1)]),
            turn(2, Bytes(vec![3, 4]), [(1, 1)]),
            turn(1, Bytes(vec![5; 256]), [(2, 1)]),
            turn(1, Close, [(2, 1)]),
        ],
    );
}

/// The timers of both servers, and one that is cancelled (0.2) or fires at once (0.4) when the room is
/// empty.
#[test]
fn clock() {
    all_programs_agree(
        "clock",
        &[
            turn(1, Connect, []),
            turn(1, Wait, [(1, 2)]),
            turn(1, Close, []),
            turn(2, Connect, []),
            turn(2, Wait, [(2, 1)]),
        ],
    );
}

const SERVER_0_2: [Program; 2] = [
    Program {
        server: Version::V0_2,
        host: Host::Jit,
    },
    Program {
        server: Version::V0_2,
        host: Host::Wasmi,
    },
];

/// The server 0.2.9 gives both connections one id, and the guest two connects of it.
#[test]
fn one_token_twice() {
    let turns = [
        turn(1, ConnectWithToken("t"), [(1, 1)]),
        turn(2, Connect, [(2, 1), (1, 1)]),
        turn(3, ConnectWithToken("t"), [(3, 1), (2, 1)]),
        turn(3, Text("hello"), [(3, 1), (2, 1)]),
        turn(1, Text("still here"), [(3, 1), (2, 1)]),
        turn(1, Close, [(2, 1)]),
        turn(2, Text("/who"), [(2, 1)]),
    ];
    let [jit, wasmi] =
        SERVER_0_2.map(|program| play(program.serve(&bundled("chat-rust-0.2")), &turns));
    assert_eq!(wasmi, jit);
}

/// The guest traps at an empty text, since the SDK 0.2.9 cannot send one. The server goes on.
#[test]
fn a_trap_behind_the_server_0_2() {
    let turns = [
        turn(1, Connect, []),
        turn(1, Text(""), []),
        turn(1, Text("hello"), [(1, 1)]),
    ];
    let [jit, wasmi] =
        SERVER_0_2.map(|program| play(program.serve(&bundled("echo-rust-0.2")), &turns));
    assert_eq!(wasmi, jit);
}

/// The same guest behind the server 0.4.4, for which the JIT host 0.4.4 has no such room.
#[test]
fn a_trap_behind_the_server_0_4() {
    let program = Program {
        server: Version::V0_4,
        host: Host::Wasmi,
    };
    let turns = [
        turn(1, Connect, []),
        turn(1, Text(""), []),
        turn(1, Text("hello"), [(1, 1)]),
    ];
    let received = play(program.serve(&bundled("echo-rust-0.2")), &turns);
    assert_eq!(received, [(1, Message::text("hello"))]);
}
