//! Messages in the transport: blocked for a while, failed, or sent.

use crate::{
    host::{host, open, say, sent, texts},
    support::{ENV, echo, guest_0_2, module, speaker},
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Host, Instant, ManualClock, MessagePayload,
    MessageRecipient, OutputMessage, OwnedPayload, RoomKey, SendError, Transport,
};

#[test]
fn all_messages_of_an_event_are_sent_in_one_poll() {
    let text = speaker(
        &[(
            "connect",
            "(call $say (i32.const 1)) (call $say (i32.const 2))",
        )],
        "",
    );
    let mut host = host();
    open(&mut host, "room", &module(&text));
    let payloads: Vec<_> = host
        .transport()
        .sent
        .iter()
        .map(|sent| sent.payload.clone())
        .collect();
    assert_eq!(
        payloads,
        [1_i32, 2].map(|number| OwnedPayload::Bytes(number.to_le_bytes().into()))
    );
}

#[test]
fn blocked_messages_are_sent_later_in_order() {
    let (mut host, module) = (host(), module(&echo()));
    let slow = open(&mut host, "slow", &module);
    host.transport_mut().capacity = Some(2);
    for text in ["1", "2", "3", "4", "5"] {
        say(&mut host, slow, text);
    }
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(slow, "1"), (slow, "2")]));
    assert!(host.is_blocked());
    // Further messages queue behind it.
    say(&mut host, slow, "6");
    assert_eq!(
        host.poll_timeout(),
        None,
        "the host waits for the transport, not the clock"
    );
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    assert_eq!(sent(&mut host), []);
    host.transport_mut().capacity = Some(1);
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(slow, "3")]));
    assert!(host.is_blocked());
    host.transport_mut().capacity = None;
    host.poll(Budget::UNLIMITED);
    assert_eq!(
        sent(&mut host),
        texts([(slow, "4"), (slow, "5"), (slow, "6")])
    );
    assert!(!host.is_blocked());
}

/// A transport that blocks for one room and fails for another.
#[derive(Default)]
struct FaultyTransport {
    blocked: Option<RoomKey>,
    failing: Option<RoomKey>,
    sent: Vec<(RoomKey, Vec<u8>)>,
    refusals: usize,
}

impl Transport for FaultyTransport {
    type Error = String;

    fn send(&mut self, room: RoomKey, message: OutputMessage<'_>) -> Result<(), SendError<String>> {
        if self.blocked == Some(room) {
            self.refusals += 1;
            return Err(SendError::WouldBlock);
        }
        if self.failing == Some(room) {
            return Err(SendError::Failed("lost".to_owned()));
        }
        self.sent
            .push((room, message.payload.as_bytes().to_owned()));
        Ok(())
    }
}

#[test]
fn a_blocked_room_delays_no_other() {
    let mut host = Host::new(ManualClock::new(), FaultyTransport::default());
    let module = module(&echo());
    let keys = ["blocked", "good"].map(|id| host.open(id, &module).unwrap());
    for key in keys {
        host.enqueue(key, Event::Connect(ClientId(1))).unwrap();
    }
    host.transport_mut().blocked = Some(keys[0]);
    for i in 0..10_u8 {
        for key in keys {
            host.enqueue(key, Event::message(ClientId(1), &[i]))
                .unwrap();
        }
        host.poll(Budget::UNLIMITED);
        assert_eq!(host.transport().sent.last(), Some(&(keys[1], vec![i])));
    }
    // One attempt in each poll.
    assert!(host.transport().refusals <= 10);
    host.transport_mut().blocked = None;
    host.transport_mut().sent.clear();
    host.poll(Budget::UNLIMITED);
    let late: Vec<_> = (0..10_u8).map(|i| (keys[0], vec![i])).collect();
    assert_eq!(host.transport().sent, late);
}

#[test]
fn a_blocked_room_is_retried_once_in_each_poll() {
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, FaultyTransport::default());
    let text = speaker(
        &[(
            "message",
            "(call $set_timer (i32.const 10)) (call $say (i32.const 1))",
        )],
        "",
    );
    let room = host.open("blocked", &module(&text)).unwrap();
    host.transport_mut().blocked = Some(room);
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.enqueue(room, Event::message(ClientId(1), "go"))
        .unwrap();
    for (polls, now) in [0, 5, 10, 15].into_iter().enumerate() {
        clock.set(Instant::from_millis(now));
        host.poll(Budget::UNLIMITED);
        assert_eq!(host.transport().refusals, polls + 1, "at {now} ms");
    }
}

#[test]
fn a_failed_send_blocks_no_other_message() {
    let mut host = Host::new(ManualClock::new(), FaultyTransport::default());
    let module = module(&echo());
    let keys = ["failing", "good"].map(|id| host.open(id, &module).unwrap());
    host.transport_mut().failing = Some(keys[0]);
    for key in keys {
        host.enqueue(key, Event::Connect(ClientId(1))).unwrap();
        host.enqueue(key, Event::message(ClientId(1), b"1"))
            .unwrap();
    }
    host.poll(Budget::UNLIMITED);
    assert!(!host.is_blocked());
    host.transport_mut().failing = None;
    host.enqueue(keys[0], Event::message(ClientId(1), b"2"))
        .unwrap();
    host.poll(Budget::UNLIMITED);
    assert_eq!(
        host.transport().sent,
        [(keys[1], vec![b'1']), (keys[0], vec![b'2'])]
    );
}

#[test]
fn the_recording_transport_can_be_set_to_fail() {
    let (mut host, module) = (host(), module(&echo()));
    let room = open(&mut host, "room", &module);
    host.transport_mut().capacity = Some(1);
    host.transport_mut().fails = true;
    say(&mut host, room, "sent");
    say(&mut host, room, "lost");
    host.poll(Budget::UNLIMITED);
    assert!(!host.is_blocked());
    host.transport_mut().capacity = None;
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(room, "sent")]));
}

#[test]
fn a_failed_room_is_reported_after_its_blocked_messages_are_sent() {
    let body = "(call $send_message (local.get 0) (local.get 1) (local.get 2)) (unreachable)";
    let mut host = host();
    let room = open(
        &mut host,
        "room",
        &module(&guest_0_2(ENV, &[("message", body)], "")),
    );
    host.transport_mut().capacity = Some(0);
    say(&mut host, room, "last words");
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.poll_closed(), None);
    assert!(host.room(room).unwrap().is_closed());
    let refused = host.enqueue(room, Event::message(ClientId(1), "late"));
    assert_eq!(refused, Err(EventError::Closed));
    host.transport_mut().capacity = None;
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(room, "last words")]));
    let closed = host.poll_closed().expect("the room is closed");
    assert!(closed.fault.is_some());
    assert_eq!(
        (closed.stats.messages_in, closed.stats.messages_out),
        (1, 1)
    );
}

#[test]
fn the_transport_receives_messages_unresolved() {
    #[derive(Default)]
    struct Checking(usize);

    impl Transport for Checking {
        type Error = &'static str;

        fn send(
            &mut self,
            _: RoomKey,
            message: OutputMessage<'_>,
        ) -> Result<(), SendError<Self::Error>> {
            assert_eq!(
                message.recipient,
                MessageRecipient::EveryoneExcept(ClientId(1))
            );
            assert_eq!(message.payload, MessagePayload::Bytes(&[1, 0, 0, 0]));
            assert!(
                message.recipient.includes(ClientId(2)) && !message.recipient.includes(ClientId(1))
            );
            self.0 += 1;
            Ok(())
        }
    }

    let body = "(i32.store (i32.const 0) (local.get 0))
        (call $send_binary (i32.sub (i32.const 0) (local.get 0)) (i32.const 0) (i32.const 4))";
    let mut host = Host::new(ManualClock::new(), Checking::default());
    let room = host
        .open("room", &module(&speaker(&[("connect", body)], "")))
        .unwrap();
    host.enqueue(room, Event::Connect(ClientId(1))).unwrap();
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.transport().0, 1);
}

/// A transport that lets rooms wait.
#[derive(Default)]
struct Gate {
    is_open: bool,
    sent: usize,
}

impl Transport for Gate {
    type Error = core::convert::Infallible;

    fn send(&mut self, _: RoomKey, _: OutputMessage<'_>) -> Result<(), SendError<Self::Error>> {
        self.sent += 1;
        Ok(())
    }

    fn is_ready(&self, _: RoomKey) -> bool {
        self.is_open
    }
}

#[test]
fn a_room_waits_until_the_transport_is_ready() {
    let say = "(call $say (i32.const 1))";
    let text = speaker(&[("message", say), ("timer", say)], "");
    let mut host = Host::new(ManualClock::new(), Gate::default());
    let room = host.open("room", &module(&text)).expect("it opens");
    let client = ClientId(1);
    for event in [Event::Connect(client), Event::message(client, "text")] {
        host.enqueue(room, event).expect("it is accepted");
    }
    for _ in 0..2 {
        assert_eq!(host.poll(Budget::UNLIMITED), None);
        assert!(host.is_blocked());
        assert_eq!(host.room(room).map(|room| room.fuel_used()), Some(0));
    }
    host.transport_mut().is_open = true;
    host.poll(Budget::UNLIMITED);
    assert!(!host.is_blocked());
    assert_eq!(host.transport().sent, 1);
}

#[test]
fn the_timer_of_a_room_that_waits_fires_when_the_transport_is_ready() {
    let text = speaker(
        &[
            ("message", "(call $set_timer (i32.const 10))"),
            ("timer", "(call $say (i32.const 1))"),
        ],
        "",
    );
    let mut host = Host::new(ManualClock::new(), Gate::default());
    host.transport_mut().is_open = true;
    let room = host.open("room", &module(&text)).expect("it opens");
    let client = ClientId(1);
    for event in [Event::Connect(client), Event::message(client, "text")] {
        host.enqueue(room, event).expect("it is accepted");
    }
    let due = host.poll(Budget::UNLIMITED);
    assert_eq!(due, Some(Instant::from_millis(10)));
    host.transport_mut().is_open = false;
    host.clock().set(Instant::from_millis(20));
    assert_eq!(host.poll(Budget::UNLIMITED), None);
    host.transport_mut().is_open = true;
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.transport().sent, 1);
}
