//! A host in a tokio task, in paused time: it goes on by itself when everybody waits.

use crate::support::{ENV, SAY, echo, guest_0_2, module, module_with};
use core::time::Duration;
use stateroom_wasmi_host::{
    ClientId, EventError, FaultCause, Limits, MessageRecipient, Module, OpenError, OwnedEvent,
    OwnedPayload, RoomKey, Trap,
    driver::tokio::{HostHandle, Options, RoomOutput, spawn},
};
use tokio::{
    sync::mpsc::Receiver,
    task::yield_now,
    time::{Instant, sleep, timeout},
};

const ADA: ClientId = ClientId(1);

/// A guest that says the number of its events so far to everybody when its timer fires, and sets
/// that to a second; it begins with its first client.
fn clock() -> Module {
    let timer = "(global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
                 (call $say (global.get $ticks))
                 (call $set_timer (i32.const 1000))";
    let connect = "(call $set_timer (i32.const 1000))";
    let more = format!("{SAY} (global $ticks (mut i32) (i32.const 0))");
    module(&guest_0_2(
        ENV,
        &[("connect", connect), ("timer", timer)],
        &more,
    ))
}

fn options(capacity: usize) -> Options {
    let mut options = Options::default();
    options.channel_capacity = capacity;
    options
}

fn text(client: ClientId, text: impl ToString) -> OwnedEvent {
    OwnedEvent::message(client, text.to_string())
}

async fn open_with(rooms: &HostHandle, module: &Module) -> RoomKey {
    let room = rooms.open("room", module).await.expect("it opens");
    rooms
        .enqueue(room, OwnedEvent::Connect(ADA))
        .await
        .expect("it takes a client");
    room
}

/// The next output that is not a client's joining or leaving.
async fn next(outputs: &mut Receiver<RoomOutput>) -> Option<RoomOutput> {
    loop {
        match outputs.recv().await? {
            RoomOutput::Joined { .. } | RoomOutput::Left { .. } => {}
            output => return Some(output),
        }
    }
}

/// A text that is said next.
async fn heard(said: &mut Receiver<RoomOutput>) -> String {
    match next(said).await.expect("the task runs") {
        RoomOutput::Message {
            payload: OwnedPayload::Text(text),
            ..
        } => text,
        other => panic!("not a text: {other:?}"),
    }
}

/// Waits until the task has nothing to do: paused time goes on only then.
async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_ticks_when_its_time_has_come() {
    let (rooms, mut said) = spawn(Options::default());
    let start = Instant::now();
    let room = open_with(&rooms, &clock()).await;
    for tick in 1..=1000_u32 {
        let Some(RoomOutput::Message {
            room: from,
            recipient,
            payload: OwnedPayload::Bytes(bytes),
        }) = next(&mut said).await
        else {
            panic!("no tick")
        };
        assert_eq!((from, recipient), (room, MessageRecipient::Broadcast));
        assert_eq!(bytes, tick.to_le_bytes());
        assert_eq!(start.elapsed(), Duration::from_secs(tick.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn rooms_wake_each_at_its_own_time() {
    let (rooms, mut said) = spawn(Options::default());
    let timer = |millis: u32| {
        let initialize = format!("(call $set_timer (i32.const {millis}))");
        let say = format!("(call $say (i32.const {millis}))");
        module(&guest_0_2(
            ENV,
            &[("initialize", &initialize), ("timer", &say)],
            SAY,
        ))
    };
    let start = Instant::now();
    for millis in [300, 100, 200, 86_400_000] {
        rooms
            .open(&millis.to_string(), &timer(millis))
            .await
            .expect("it opens");
    }
    for millis in [100, 200, 300, 86_400_000_u32] {
        let Some(RoomOutput::Message {
            payload: OwnedPayload::Bytes(bytes),
            ..
        }) = next(&mut said).await
        else {
            panic!("no timer")
        };
        assert_eq!(bytes, millis.to_le_bytes());
        assert_eq!(start.elapsed(), Duration::from_millis(millis.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_in_and_messages_come_out() {
    let (rooms, mut said) = spawn(Options::default());
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "hello"))
        .await
        .expect("it is taken");
    let Some(RoomOutput::Message {
        room: from,
        recipient,
        payload: OwnedPayload::Text(echoed),
    }) = next(&mut said).await
    else {
        panic!("no echo")
    };
    assert_eq!(
        (from, recipient, echoed.as_str()),
        (room, MessageRecipient::Client(ADA), "hello")
    );
    rooms
        .enqueue(room, OwnedEvent::message(ADA, vec![0, 255]))
        .await
        .expect("it is taken");
    let Some(RoomOutput::Message {
        payload: OwnedPayload::Bytes(bytes),
        ..
    }) = next(&mut said).await
    else {
        panic!("no echo")
    };
    assert_eq!(bytes, [0, 255]);
    rooms
        .enqueue(room, OwnedEvent::Disconnect(ADA))
        .await
        .expect("it is taken");
    let refused = rooms.enqueue(room, text(ADA, "gone")).await;
    assert_eq!(refused, Err(EventError::NotConnected(ADA)));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_said_why() {
    let (rooms, mut said) = spawn(Options::default());
    let echo = module(&echo());
    let room = open_with(&rooms, &echo).await;
    assert!(matches!(
        rooms.open("room", &echo).await,
        Err(OpenError::IdTaken)
    ));
    let again = rooms.enqueue(room, OwnedEvent::Connect(ADA)).await;
    assert_eq!(again, Err(EventError::AlreadyConnected(ADA)));
    rooms.close(room).await.expect("the room is open");
    assert!(
        matches!(next(&mut said).await, Some(RoomOutput::Closed(closed)) if closed.key == room)
    );
    let late = rooms.enqueue(room, text(ADA, "late")).await;
    assert_eq!(late, Err(EventError::UnknownRoom));
    rooms
        .open("room", &echo)
        .await
        .expect("the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_closed_is_told_of_after_its_last_words() {
    let (rooms, mut said) = spawn(Options::default());
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "last words"))
        .await
        .expect("it is taken");
    idle().await;
    rooms.close(room).await.expect("the room is open");
    assert_eq!(heard(&mut said).await, "last words");
    let Some(RoomOutput::Closed(closed)) = next(&mut said).await else {
        panic!("not closed")
    };
    assert_eq!(
        (closed.key, &*closed.id, closed.fault),
        (room, "room", None)
    );
    assert_eq!(closed.clients, [ADA]);
    assert_eq!(
        (closed.stats.messages_in, closed.stats.messages_out),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_fails_is_told_of() {
    let (rooms, mut said) = spawn(Options::default());
    let fails = guest_0_2(ENV, &[("message", "unreachable")], "");
    let room = open_with(&rooms, &module(&fails)).await;
    rooms
        .enqueue(room, text(ADA, "boom"))
        .await
        .expect("it is taken");
    let Some(RoomOutput::Closed(closed)) = next(&mut said).await else {
        panic!("not closed")
    };
    let fault = closed.fault.expect("a fault");
    assert_eq!(
        (fault.during, fault.cause),
        ("message", FaultCause::Trap(Trap::Unreachable))
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_nobody_receives() {
    let (rooms, mut said) = spawn(options(4));
    let mut limits = Limits::default();
    limits.max_inbox_events = 8;
    let room = open_with(&rooms, &module_with(&echo(), &limits)).await;
    // Events are taken until the channel and the inbox are full: no more, whoever waits.
    let mut taken = 0;
    loop {
        match rooms.enqueue(room, text(ADA, taken)).await {
            Ok(()) => taken += 1,
            Err(EventError::InboxFull) => {
                idle().await;
                if rooms.enqueue(room, text(ADA, taken)).await.is_err() {
                    break;
                }
                taken += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(taken < 100, "there is no bound");
    }
    assert!(taken >= 4 + 8, "{taken}");
    // Then the rooms go on as fast as somebody receives.
    for number in 0..taken {
        assert_eq!(heard(&mut said).await, number.to_string());
    }
    rooms
        .enqueue(room, text(ADA, "more"))
        .await
        .expect("there is room again");
    assert_eq!(heard(&mut said).await, "more");
}

#[tokio::test(start_paused = true)]
async fn timers_wait_for_a_receiver_and_fire_once() {
    let (rooms, mut said) = spawn(options(1));
    let _room = open_with(&rooms, &clock()).await;
    // The first tick fills the channel, and the second waits; there is no third meanwhile.
    sleep(Duration::from_millis(10_500)).await;
    let mut ticks = Vec::new();
    for _ in 0..3 {
        let Some(RoomOutput::Message {
            payload: OwnedPayload::Bytes(bytes),
            ..
        }) = next(&mut said).await
        else {
            panic!("no tick")
        };
        ticks.push((bytes[0], Instant::now()));
    }
    assert_eq!(
        ticks.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(ticks[0].1, ticks[1].1, "both had waited");
}

/// A single task may put in and take out by turns, however full the channel is.
#[tokio::test(start_paused = true)]
async fn a_room_that_ends_while_nobody_receives_stops_nobody() {
    let (rooms, mut said) = spawn(options(1));
    let echo = module(&echo());
    let mut keys = Vec::new();
    for number in 0..5 {
        keys.push(
            rooms
                .open(&number.to_string(), &echo)
                .await
                .expect("it opens"),
        );
    }
    for key in &keys {
        rooms.close(*key).await.expect("the room is open");
    }
    idle().await;
    let last = timeout(Duration::from_secs(1), rooms.open("last", &echo)).await;
    last.expect("commands are still taken").expect("it opens");
    for key in keys {
        assert!(
            matches!(next(&mut said).await, Some(RoomOutput::Closed(closed)) if closed.key == key)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_handles() {
    let (rooms, mut said) = spawn(Options::default());
    open_with(&rooms, &clock()).await;
    let other = rooms.clone();
    drop(rooms);
    assert!(
        matches!(next(&mut said).await, Some(RoomOutput::Message { .. })),
        "a clone keeps it"
    );
    drop(other);
    // Its timer is set, and is no reason to stay.
    let start = Instant::now();
    assert!(next(&mut said).await.is_none());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_was_put_in_is_answered_after_the_handles_are_gone() {
    let (rooms, mut said) = spawn(options(2));
    let room = open_with(&rooms, &module(&echo())).await;
    for number in 0..50 {
        rooms
            .enqueue(room, text(ADA, number))
            .await
            .expect("the inbox holds more");
    }
    rooms
        .close(
            rooms
                .open("other", &module(&echo()))
                .await
                .expect("it opens"),
        )
        .await
        .expect("the room is open");
    drop(rooms);
    let mut texts = Vec::new();
    let mut closed = 0;
    while let Some(said) = next(&mut said).await {
        match said {
            RoomOutput::Message {
                payload: OwnedPayload::Text(text),
                ..
            } => texts.push(text),
            RoomOutput::Closed(_) => closed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        texts,
        (0..50).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(closed, 1);
}

#[tokio::test(start_paused = true)]
async fn rooms_go_on_when_nobody_receives_any_more() {
    let (rooms, said) = spawn(options(1));
    let room = open_with(&rooms, &module(&echo())).await;
    drop(said);
    for number in 0..5000 {
        while rooms.enqueue(room, text(ADA, number)).await == Err(EventError::InboxFull) {
            yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_capacity_of_zero_is_one() {
    let (rooms, mut said) = spawn(options(0));
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "hello"))
        .await
        .expect("it is taken");
    assert_eq!(heard(&mut said).await, "hello");
}
