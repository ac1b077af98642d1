//! Queues of a fixed capacity.

use crate::support::{Random, echo, limits, module, module_with};
use stateroom_wasmi_host::{
    Budget, ClientId, Event, EventError, Host, ManualClock, MessagePayload, MessageRecipient,
    driver::fixed_capacity::{FixedEvents, FixedPayloadQueue, FixedTransport, QueueError},
};
use std::collections::VecDeque;

#[test]
fn the_queue_is_fifo_and_rejects_what_does_not_fit() {
    let mut random = Random::new();
    let mut queue = FixedPayloadQueue::<u32, 5, 20>::new();
    let mut model: VecDeque<(u32, Vec<u8>, bool)> = VecDeque::new();
    for i in 0..10_000 {
        if random.below(2) == 0 {
            let (length, is_text) = (random.below(23), random.below(2) == 0);
            let bytes: Vec<u8> = random
                .bytes(length)
                .into_iter()
                .map(|byte| byte % 128)
                .collect();
            let text = String::from_utf8(bytes.clone()).expect("it is ASCII");
            let payload = if is_text {
                MessagePayload::Text(&text)
            } else {
                MessagePayload::Bytes(&bytes)
            };
            let used: usize = model.iter().map(|(_, bytes, _)| bytes.len()).sum();
            let expected = match length {
                21.. => Err(QueueError::TooLong {
                    bytes: length,
                    limit: 20,
                }),
                _ if model.len() == 5 || used + length > 20 => Err(QueueError::Full),
                _ => Ok(()),
            };
            assert_eq!(queue.push(i, payload), expected);
            if expected.is_ok() {
                model.push_back((i, bytes, is_text));
            }
        } else {
            let owned = |(header, payload): (u32, MessagePayload<'_>)| {
                (
                    header,
                    payload.as_bytes().to_owned(),
                    payload.text().is_some(),
                )
            };
            assert_eq!(queue.front().map(owned), model.front().cloned());
            assert_eq!(queue.pop().map(owned), model.pop_front());
        }
        assert_eq!(
            (queue.len(), queue.is_empty()),
            (model.len(), model.is_empty())
        );
    }
    queue.clear();
    assert_eq!(queue.pop(), None);
    assert_eq!(queue.payload_bytes(), 0);
}

#[test]
fn a_full_transport_blocks_the_room_and_loses_nothing() {
    let mut host = Host::new(ManualClock::new(), FixedTransport::<2, 10>::new());
    let room = host.open("", &module(&echo())).expect("the room opens");
    host.enqueue(room, Event::Connect(ClientId(1)))
        .expect("the client may connect");
    for text in ["one", "two", "three", "longer than ten bytes", "four"] {
        host.enqueue(room, Event::message(ClientId(1), text))
            .expect("the room accepts it");
    }
    let mut sent = Vec::new();
    loop {
        host.poll(Budget::UNLIMITED);
        assert!(host.transport().len() <= 2);
        let Some((address, payload)) = host.transport_mut().pop() else {
            break;
        };
        assert_eq!(
            (address.room, address.recipient),
            (room, MessageRecipient::Client(ClientId(1)))
        );
        sent.push(payload.text().expect("the payload is text").to_owned());
    }
    assert_eq!(sent, ["one", "two", "three", "four"]);
}

#[test]
fn events_are_queued_for_a_busy_room() {
    let limits = limits(|limits| {
        limits.max_inbox_events = 2;
        limits.max_inbox_bytes = 10;
        limits.max_message_bytes = 10;
    });
    let mut host = Host::new(ManualClock::new(), FixedTransport::<8, 100>::new());
    let room = host
        .open("", &module_with(&echo(), &limits))
        .expect("the room opens");
    let mut events = FixedEvents::<10, 100>::new();
    events
        .push(room, Event::Connect(ClientId(1)))
        .expect("the queue has capacity");
    for text in ["one", "two", "elevenbytes", "three", "four", "five"] {
        events
            .push(room, Event::message(ClientId(1), text))
            .expect("the queue has capacity");
    }
    events
        .push(room, Event::Disconnect(ClientId(1)))
        .expect("the queue has capacity");
    events
        .push(room, Event::message(ClientId(1), "too late"))
        .expect("the queue has capacity");

    let mut refused = Vec::new();
    let mut rounds = 0;
    while !events.is_empty() {
        events.deliver(&mut host, |at, event, error| {
            assert_eq!(at, room);
            refused.push((event.payload_len(), error));
        });
        host.poll(Budget::UNLIMITED);
        rounds += 1;
        assert!(rounds < 10);
    }
    assert!(rounds > 2, "the inbox was full at first");
    assert_eq!(
        refused,
        [
            (
                11,
                EventError::MessageTooLong {
                    bytes: 11,
                    limit: 10
                }
            ),
            (8, EventError::NotConnected(ClientId(1)))
        ]
    );
    let sent: Vec<_> = std::iter::from_fn(|| {
        host.transport_mut()
            .pop()
            .map(|(_, payload)| payload.text().expect("the payload is text").to_owned())
    })
    .collect();
    assert_eq!(sent, ["one", "two", "three", "four", "five"]);
}
