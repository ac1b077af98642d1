//! What becomes of messages on their way out: refused for a while, lost, or taken.

use crate::{
    host::{host, open, say, sent, texts},
    support::{ENV, echo, guest_0_2, module, speaker},
};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Host, Instant, ManualClock, MessagePayload,
    MessageRecipient, OutputMessage, OwnedPayload, RoomKey, SendError, Transport,
};

#[test]
fn all_that_an_event_sends_goes_out_in_one_poll() {
    let text = speaker(
        &[(
            "connect",
            "(call $say (i32.const 1)) (call $say (i32.const 2))",
        )],
        "",
    );
    let mut host = host();
    open(&mut host, "room", &module(&text));
    let said: Vec<_> = host
        .transport()
        .sent
        .iter()
        .map(|sent| sent.payload.clone())
        .collect();
    assert_eq!(
        said,
        [1_i32, 2].map(|number| OwnedPayload::Bytes(number.to_le_bytes().into()))
    );
}

#[test]
fn what_the_transport_refuses_is_sent_later_and_in_order() {
    let (mut host, module) = (host(), module(&echo()));
    let slow = open(&mut host, "slow", &module);
    host.transport_mut().capacity = Some(2);
    for text in ["1", "2", "3", "4", "5"] {
        say(&mut host, slow, text);
    }
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&mut host), texts([(slow, "1"), (slow, "2")]));
    assert!(host.is_blocked());
    // What comes now waits behind it.
    say(&mut host, slow, "6");
    assert_eq!(
        host.poll_timeout(),
        None,
        "the transport is waited for, not the clock"
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

/// A transport that refuses what one room sends, or loses it.
#[derive(Default)]
struct Picky {
    refused: Option<RoomKey>,
    lost: Option<RoomKey>,
    sent: Vec<(RoomKey, Vec<u8>)>,
    refusals: usize,
}

impl Transport for Picky {
    type Error = String;

    fn send(&mut self, room: RoomKey, message: OutputMessage<'_>) -> Result<(), SendError<String>> {
        if self.refused == Some(room) {
            self.refusals += 1;
            return Err(SendError::WouldBlock);
        }
        if self.lost == Some(room) {
            return Err(SendError::Failed("lost".to_owned()));
        }
        self.sent
            .push((room, message.payload.as_bytes().to_owned()));
        Ok(())
    }
}

#[test]
fn a_room_whose_messages_are_refused_delays_no_other() {
    let mut host = Host::new(ManualClock::new(), Picky::default());
    let module = module(&echo());
    let keys = ["refused", "good"].map(|id| host.open(id, &module).unwrap());
    for key in keys {
        host.enqueue(key, Event::Connect(ClientId(1))).unwrap();
    }
    host.transport_mut().refused = Some(keys[0]);
    for i in 0..10_u8 {
        for key in keys {
            host.enqueue(key, Event::message(ClientId(1), &[i]))
                .unwrap();
        }
        host.poll(Budget::UNLIMITED);
        assert_eq!(host.transport().sent.last(), Some(&(keys[1], vec![i])));
    }
    // One try in each poll.
    assert!(host.transport().refusals <= 10);
    host.transport_mut().refused = None;
    host.transport_mut().sent.clear();
    host.poll(Budget::UNLIMITED);
    let late: Vec<_> = (0..10_u8).map(|i| (keys[0], vec![i])).collect();
    assert_eq!(host.transport().sent, late);
}

#[test]
fn a_room_whose_messages_are_refused_is_tried_once_in_each_poll_whatever_its_timer_does() {
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, Picky::default());
    let text = speaker(
        &[(
            "message",
            "(call $set_timer (i32.const 10)) (call $say (i32.const 1))",
        )],
        "",
    );
    let room = host.open("refused", &module(&text)).unwrap();
    host.transport_mut().refused = Some(room);
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
fn a_message_that_is_lost_keeps_nothing_else() {
    let mut host = Host::new(ManualClock::new(), Picky::default());
    let module = module(&echo());
    let keys = ["unlucky", "good"].map(|id| host.open(id, &module).unwrap());
    host.transport_mut().lost = Some(keys[0]);
    for key in keys {
        host.enqueue(key, Event::Connect(ClientId(1))).unwrap();
        host.enqueue(key, Event::message(ClientId(1), b"1"))
            .unwrap();
    }
    host.poll(Budget::UNLIMITED);
    assert!(!host.is_blocked());
    host.transport_mut().lost = None;
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
fn a_room_that_fails_with_messages_refused_is_reported_when_they_were_sent() {
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
    let closed = host.poll_closed().expect("the room has ended");
    assert!(closed.fault.is_some());
    assert_eq!(
        (closed.stats.messages_in, closed.stats.messages_out),
        (1, 1)
    );
}

#[test]
fn a_transport_sees_each_message_as_the_guest_sent_it() {
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
