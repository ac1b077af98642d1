//! ABI 0.4: its encoding, compared with `bincode` on the enums of the published SDK.

use crate::published::{self, MessageFromProcess, MessageToProcess, as_published, as_request};
use crate::support::{
    Random, Said, connect, guest_0_4, hex, module, next_message, outputs, room, room_of_one, send,
};
use stateroom_wasmi_host::{
    ClientId, Event, Fault, FaultCause, Instant, Limits, MessagePayload, MessageRecipient, Room,
    abi::{AbiVersion, Call, DecodeError, Request, decode, encode_into, encoded_len},
};

fn encode(call: &Call<'_>) -> Vec<u8> {
    let mut bytes = vec![0xaa; encoded_len(call)];
    encode_into(call, &mut bytes);
    bytes
}

fn calls() -> Vec<Call<'static>> {
    let mut calls = vec![
        Call::Init {
            room_id: "the id is not encoded",
        },
        Call::Timer,
    ];
    for client in [0, 1, 0x0102_0304, i32::MAX as u32, u32::MAX].map(ClientId) {
        calls.extend([Call::Connect(client), Call::Disconnect(client)]);
        for text in ["", "a", "Grüße, 世界", "\0"] {
            calls.push(Call::Message(client, MessagePayload::Text(text)));
        }
        for bytes in [&[][..], &[0], &[0xff; 300]] {
            calls.push(Call::Message(client, MessagePayload::Bytes(bytes)));
        }
    }
    calls
}

fn requests() -> Vec<MessageFromProcess> {
    let mut requests: Vec<_> = [0, 1, 1000, u32::MAX]
        .map(|ms_delay| MessageFromProcess::SetTimer { ms_delay })
        .into();
    let mut recipients = vec![published::MessageRecipient::Broadcast];
    for client in [0, 1, i32::MAX as u32, u32::MAX].map(published::ClientId) {
        recipients.push(published::MessageRecipient::Client(client.clone()));
        recipients.push(published::MessageRecipient::EveryoneExcept(client));
    }
    for recipient in recipients {
        for message in [
            published::MessagePayload::Text(String::new()),
            published::MessagePayload::Text("Grüße, 世界".to_owned()),
            published::MessagePayload::Bytes(Vec::new()),
            published::MessagePayload::Bytes((0..=255).collect()),
        ] {
            requests.push(MessageFromProcess::Message {
                recipient: recipient.clone(),
                message,
            });
        }
    }
    requests
}

#[test]
fn calls_are_encoded_like_bincode() {
    for call in calls() {
        assert_eq!(
            encode(&call),
            bincode::serialize(&as_published(&call)).unwrap(),
            "{call:?}"
        );
    }
}

#[test]
fn requests_encoded_by_bincode_are_decoded() {
    for request in requests() {
        let bytes = bincode::serialize(&request).unwrap();
        assert_eq!(decode(&bytes), Ok(as_request(&request)));
    }
}

#[test]
fn random_messages_match_bincode_in_both_directions() {
    let mut random = Random::new();
    for _ in 0..2000 {
        let client = random.next() as u32;
        let len = random.below(100);
        let bytes = random.bytes(len);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_text = random.below(2) == 0;

        let payload = if is_text {
            MessagePayload::Text(&text)
        } else {
            MessagePayload::Bytes(&bytes)
        };
        let call = Call::Message(ClientId(client), payload);
        assert_eq!(
            encode(&call),
            bincode::serialize(&as_published(&call)).unwrap()
        );

        let request = MessageFromProcess::Message {
            recipient: match random.below(3) {
                0 => published::MessageRecipient::Broadcast,
                1 => published::MessageRecipient::Client(published::ClientId(client)),
                _ => published::MessageRecipient::EveryoneExcept(published::ClientId(client)),
            },
            message: match is_text {
                true => published::MessagePayload::Text(text.clone()),
                false => published::MessagePayload::Bytes(bytes.clone()),
            },
        };
        assert_eq!(
            decode(&bincode::serialize(&request).unwrap()),
            Ok(as_request(&request))
        );
    }
}

#[test]
fn random_bytes_are_decoded_like_bincode() {
    let mut random = Random::new();
    let mut decoded = 0;
    for _ in 0..20_000 {
        let len = random.below(60);
        let mut bytes = random.bytes(len);
        // Most words are small, so that many have valid tags.
        for word in bytes.chunks_exact_mut(4) {
            if random.below(4) != 0 {
                word.copy_from_slice(&(random.below(4) as u32).to_le_bytes());
            }
        }
        let published: Option<MessageFromProcess> = bincode::deserialize(&bytes).ok();
        assert_eq!(
            decode(&bytes).ok(),
            published.as_ref().map(as_request),
            "{}",
            hex(&bytes)
        );
        decoded += usize::from(published.is_some());
    }
    assert!(decoded > 100, "only {decoded} were messages");
}

#[test]
fn a_message_truncated_anywhere_is_rejected() {
    for request in requests() {
        let bytes = bincode::serialize(&request).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..len]),
                Err(DecodeError::Truncated),
                "{request:?} cut to {len}"
            );
        }
    }
}

#[test]
fn trailing_bytes_are_ignored_as_in_the_published_host() {
    for request in requests() {
        let mut bytes = bincode::serialize(&request).unwrap();
        bytes.extend([0xff; 9]);
        assert_eq!(
            bincode::deserialize::<MessageFromProcess>(&bytes).unwrap(),
            request
        );
        assert_eq!(decode(&bytes), Ok(as_request(&request)));
    }
}

/// A broadcast of a payload of this tag, with a length that may be a lie.
fn broadcast(payload_tag: u32, len: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0, 0, payload_tag] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend(len.to_le_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn lengths_beyond_the_message_are_rejected() {
    for tag in [0, 1] {
        for len in [
            5,
            1 << 31,
            1 << 32,
            (1 << 32) + 4,
            1 << 63,
            u64::MAX - 20,
            u64::MAX - 3,
            u64::MAX,
        ] {
            assert_eq!(
                decode(&broadcast(tag, len, b"four")),
                Err(DecodeError::Truncated),
                "{len}"
            );
        }
        assert!(decode(&broadcast(tag, 4, b"four")).is_ok());
    }
}

#[test]
fn unknown_tags_are_rejected_by_name() {
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    for tag in [2, 3, 256, u32::MAX] {
        let unknown = |of| Err(DecodeError::UnknownTag { of, tag });
        assert_eq!(
            decode(&words(&[tag, 0, 0, 0, 0])),
            unknown("MessageFromProcess")
        );
        assert_eq!(
            decode(&words(&[0, 0, tag, 0, 0])),
            unknown("MessagePayload")
        );
    }
    let unknown = DecodeError::UnknownTag {
        of: "MessageRecipient",
        tag: 3,
    };
    assert_eq!(decode(&words(&[0, 3, 0, 0, 0])), Err(unknown));
    assert_eq!(unknown.to_string(), "3 is no variant of MessageRecipient");
}

#[test]
fn text_must_be_utf_8_and_bytes_are_unrestricted() {
    for wrong in [
        &[0xff][..],
        &[0xc3],
        &[0xed, 0xa0, 0x80],
        &[0xc0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
    ] {
        let len = wrong.len() as u64;
        assert_eq!(
            decode(&broadcast(1, len, wrong)),
            Err(DecodeError::NotUtf8),
            "{wrong:x?}"
        );
        assert!(decode(&broadcast(0, len, wrong)).is_ok());
    }
}

/// A guest that broadcasts each event that it receives, as bytes.
fn spy() -> String {
    // The header is in the 20 bytes before the buffer: Message, Broadcast, Bytes, length.
    let recv = r"
        (i64.store (i32.const 4076) (i64.const 0))
        (i32.store (i32.const 4084) (i32.const 0))
        (i64.store (i32.const 4088) (i64.extend_i32_u (local.get 1)))
        (call $send (i32.const 4076) (i32.add (local.get 1) (i32.const 20)))";
    guest_0_4(recv, "")
}

#[test]
fn a_guest_receives_each_event_in_bincode() {
    let mut room = room(&module(&spy()));
    assert_eq!(room.module().abi(), AbiVersion::V0_4);
    let client = || published::ClientId(7);
    let message = |message| MessageToProcess::Message {
        sender: client(),
        message,
    };
    let expect = |room: &mut Room, expected: MessageToProcess| {
        let payload = hex(&bincode::serialize(&expected).unwrap());
        assert_eq!(
            outputs(room, Instant::ZERO),
            [(MessageRecipient::Broadcast, payload)],
            "{expected:?}"
        );
    };
    expect(&mut room, MessageToProcess::Init);
    connect(&mut room, 7);
    expect(&mut room, MessageToProcess::Connect { client: client() });
    for text in ["", "a", "Grüße, 世界"] {
        room.handle_event(Instant::ZERO, Event::message(ClientId(7), text))
            .unwrap();
        expect(
            &mut room,
            message(published::MessagePayload::Text(text.to_owned())),
        );
    }
    for bytes in [&[][..], &[0xff; 1000]] {
        room.handle_event(Instant::ZERO, Event::message(ClientId(7), bytes))
            .unwrap();
        expect(
            &mut room,
            message(published::MessagePayload::Bytes(bytes.to_owned())),
        );
    }
    room.handle_event(Instant::ZERO, Event::Disconnect(ClientId(7)))
        .unwrap();
    expect(&mut room, MessageToProcess::Disconnect { client: client() });
}

#[test]
fn a_guest_receives_its_timer_event() {
    // Any other event sets the timer: SetTimer{ms_delay: 20} is at address 0.
    let recv = r"(if (i32.ne (i32.load (local.get 0)) (i32.const 4))
        (then (call $send (i32.const 0) (i32.const 8)))
        (else (call $send (i32.const 8) (i32.const 21))))";
    let message = bincode::serialize(&MessageFromProcess::Message {
        recipient: published::MessageRecipient::Broadcast,
        message: published::MessagePayload::Text("!".to_owned()),
    })
    .unwrap();
    let timer = bincode::serialize(&MessageFromProcess::SetTimer { ms_delay: 20 }).unwrap();
    assert_eq!((timer.len(), message.len()), (8, 21));
    let data: String = timer
        .iter()
        .chain(&message)
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let mut room = room(&module(&guest_0_4(
        recv,
        &format!("(data (i32.const 0) \"{data}\")"),
    )));
    assert_eq!(room.poll_timeout(), Some(Instant::from_millis(20)));
    room.handle_timeout(Instant::from_millis(20));
    let expected: [Said; 1] = [(MessageRecipient::Broadcast, "!".to_owned())];
    assert_eq!(outputs(&mut room, Instant::from_millis(20)), expected);
    assert_eq!(room.poll_timeout(), None);
}

#[test]
fn versions_are_checked_before_the_first_event() {
    let global = r#"(global (export "STATEROOM_API_VERSION") i32 (i32.const 64))"#;
    let write = "(i32.store (i32.const 64) (i32.const 1))";
    // Twenty zero bytes are a broadcast.
    let say = "(call $send (i32.const 0) (i32.const 20))";
    let in_start = format!("{global} (func $start {write}) (start $start)");
    let mut early = room(&module(&guest_0_4(say, &in_start)));
    assert_eq!(
        (outputs(&mut early, Instant::ZERO).len(), early.fault()),
        (1, None)
    );
    let mut late = room(&module(&guest_0_4(&format!("{write} {say}"), global)));
    let cause = FaultCause::WrongVersion {
        name: "STATEROOM_API_VERSION",
        expected: 1,
        found: 0,
    };
    let during = "stateroom_recv";
    let fault = Fault { during, cause };
    assert_eq!(outputs(&mut late, Instant::ZERO), []);
    assert_eq!(late.fault(), Some(&fault));

    // After the id was freed, and before `Init` is allocated.
    let free = r#"(export "stateroom_free") (param i32 i32)"#;
    let text = guest_0_4(say, global).replace(free, &format!("{free} {write}"));
    assert_eq!(room(&module(&text)).fault(), None);
    let malloc = r#"(export "stateroom_malloc") (param i32) (result i32)"#;
    let second =
        format!("(if (global.get $second) (then {write})) (global.set $second (i32.const 1))");
    let more = format!("{global} (global $second (mut i32) (i32.const 0))");
    let text = guest_0_4(say, &more).replace(malloc, &format!("{malloc} {second}"));
    assert_eq!(room(&module(&text)).fault(), Some(&fault));
}

/// A room of a guest that passes each message of a client to `stateroom_send`.
fn forwarder() -> Room {
    let recv = r"(if (i32.eq (i32.load (local.get 0)) (i32.const 3))
        (then (call $send (i32.add (local.get 0) (i32.const 20)) (i32.sub (local.get 1) (i32.const 20)))))";
    room_of_one(&guest_0_4(recv, ""), &Limits::default())
}

#[test]
fn requests_of_a_guest_become_outputs_and_timers() {
    let mut room = forwarder();
    for request in requests() {
        send(&mut room, bincode::serialize(&request).unwrap().as_slice());
        match as_request(&request) {
            Request::Message { recipient, payload } => {
                let sent = next_message(&mut room).expect("the message is sent");
                assert_eq!((sent.0, sent.1.as_payload()), (recipient, payload));
            }
            Request::SetTimer { ms_delay } => {
                let deadline = Instant::from_millis(ms_delay.into());
                assert_eq!(room.poll_timeout(), Some(deadline));
            }
        }
        assert_eq!(room.poll_output(), None);
    }
    assert_eq!(room.fault(), None);
}

#[test]
fn messages_can_be_sent_from_the_edges_of_memory() {
    // An empty broadcast of bytes is encoded as 20 zero bytes, and memory is zero.
    for ptr in [0, 1, 65_536 - 20] {
        let recv = format!("(call $send (i32.const {ptr}) (i32.const 20))");
        let mut room = room(&module(&guest_0_4(&recv, "")));
        assert_eq!(
            outputs(&mut room, Instant::ZERO),
            [(MessageRecipient::Broadcast, "0x".to_owned())]
        );
    }
}

#[test]
fn recipients_that_are_not_connected_are_passed_on() {
    let mut room = forwarder();
    for (tag, client) in [
        (1, 0),
        (1, 77),
        (1, u32::MAX),
        (2, 0),
        (2, 0x8000_0000),
        (2, u32::MAX),
    ] {
        let bytes: Vec<u8> = [0, tag, client, 0, 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_le_bytes())
            .collect();
        send(&mut room, bytes.as_slice());
        let recipient = match tag {
            1 => MessageRecipient::Client(ClientId(client)),
            _ => MessageRecipient::EveryoneExcept(ClientId(client)),
        };
        assert_eq!(
            outputs(&mut room, Instant::ZERO),
            [(recipient, "0x".to_owned())]
        );
    }
}

#[test]
fn sending_a_truncated_message_is_a_fault() {
    for request in requests() {
        let bytes = bincode::serialize(&request).unwrap();
        // Long messages are truncated only in their header and before their last byte.
        for len in (0..bytes.len().min(24)).chain([bytes.len() - 1]) {
            let mut room = forwarder();
            send(&mut room, &bytes[..len]);
            let cause = FaultCause::Undecodable(DecodeError::Truncated);
            assert_eq!(
                room.fault(),
                Some(&Fault {
                    during: "stateroom_recv",
                    cause
                })
            );
            assert_eq!(
                (outputs(&mut room, Instant::ZERO), room.poll_timeout()),
                (vec![], None)
            );
        }
    }
}

#[test]
fn sending_an_undecodable_message_is_a_fault_with_its_source() {
    for (bytes, error, text) in [
        (
            vec![],
            DecodeError::Truncated,
            "the encoded message is cut off",
        ),
        (
            broadcast(0, u64::MAX, b""),
            DecodeError::Truncated,
            "the encoded message is cut off",
        ),
        (
            broadcast(1, 1, &[0xff]),
            DecodeError::NotUtf8,
            "the encoded text is not UTF-8",
        ),
        (
            broadcast(2, 0, b""),
            DecodeError::UnknownTag {
                of: "MessagePayload",
                tag: 2,
            },
            "2 is no variant of MessagePayload",
        ),
    ] {
        let mut room = forwarder();
        send(&mut room, bytes.as_slice());
        let fault = Fault {
            during: "stateroom_recv",
            cause: FaultCause::Undecodable(error),
        };
        assert_eq!(room.fault(), Some(&fault));
        let source = std::error::Error::source(&fault).expect("the source is kept");
        assert_eq!(source.to_string(), text);
    }
}

#[test]
#[should_panic(expected = "the buffer must fit the call")]
fn encoding_into_a_buffer_of_the_wrong_length_panics() {
    encode_into(&Call::Timer, &mut [0; 5]);
}
