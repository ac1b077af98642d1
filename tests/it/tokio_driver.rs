//! A host in a tokio task, in paused time: it advances by itself when all tasks are idle.

use crate::support::{ENV, SAY, echo, guest_0_2, module, module_with};
use core::time::Duration;
use stateroom_wasmi_host::{
    Backoff, ClientId, EventError, FaultCause, FaultPolicy, Limits, MessageRecipient, Module,
    OpenError, OwnedEvent, OwnedPayload, RoomKey, Trap,
    driver::tokio::{HostHandle, Options, RoomOutput, spawn},
};
use tokio::{
    sync::mpsc::Receiver,
    task::yield_now,
    time::{Instant, sleep, timeout},
};

const ADA: ClientId = ClientId(1);

/// A guest that broadcasts the number of ticks so far once a second, from the first connect on.
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
    let room = rooms.open("room", module).await.expect("the room opens");
    rooms
        .enqueue(room, OwnedEvent::Connect(ADA))
        .await
        .expect("the client may connect");
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

/// The next text.
async fn next_text(outputs: &mut Receiver<RoomOutput>) -> String {
    match next(outputs).await.expect("the task runs") {
        RoomOutput::Message {
            payload: OwnedPayload::Text(text),
            ..
        } => text,
        other => panic!("not a text: {other:?}"),
    }
}

/// Waits until the task is idle: paused time advances only then.
async fn idle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn timers_fire_at_their_deadlines() {
    let (rooms, mut outputs) = spawn(Options::default());
    let start = Instant::now();
    let room = open_with(&rooms, &clock()).await;
    for tick in 1..=1000_u32 {
        let Some(RoomOutput::Message {
            room: from,
            recipient,
            payload: OwnedPayload::Bytes(bytes),
        }) = next(&mut outputs).await
        else {
            panic!("no tick")
        };
        assert_eq!((from, recipient), (room, MessageRecipient::Broadcast));
        assert_eq!(bytes, tick.to_le_bytes());
        assert_eq!(start.elapsed(), Duration::from_secs(tick.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn each_room_wakes_at_its_own_deadline() {
    let (rooms, mut outputs) = spawn(Options::default());
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
            .expect("the room opens");
    }
    for millis in [100, 200, 300, 86_400_000_u32] {
        let Some(RoomOutput::Message {
            payload: OwnedPayload::Bytes(bytes),
            ..
        }) = next(&mut outputs).await
        else {
            panic!("no timer")
        };
        assert_eq!(bytes, millis.to_le_bytes());
        assert_eq!(start.elapsed(), Duration::from_millis(millis.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_echoed_until_the_client_disconnects() {
    let (rooms, mut outputs) = spawn(Options::default());
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "hello"))
        .await
        .expect("the event is accepted");
    let Some(RoomOutput::Message {
        room: from,
        recipient,
        payload: OwnedPayload::Text(echoed),
    }) = next(&mut outputs).await
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
        .expect("the event is accepted");
    let Some(RoomOutput::Message {
        payload: OwnedPayload::Bytes(bytes),
        ..
    }) = next(&mut outputs).await
    else {
        panic!("no echo")
    };
    assert_eq!(bytes, [0, 255]);
    rooms
        .enqueue(room, OwnedEvent::Disconnect(ADA))
        .await
        .expect("the event is accepted");
    let refused = rooms.enqueue(room, text(ADA, "gone")).await;
    assert_eq!(refused, Err(EventError::NotConnected(ADA)));
}

#[tokio::test(start_paused = true)]
async fn rejected_commands_return_the_reason() {
    let (rooms, mut outputs) = spawn(Options::default());
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
        matches!(next(&mut outputs).await, Some(RoomOutput::Closed(closed)) if closed.key == room)
    );
    let late = rooms.enqueue(room, text(ADA, "late")).await;
    assert_eq!(late, Err(EventError::UnknownRoom));
    rooms
        .open("room", &echo)
        .await
        .expect("the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_closed_room_is_reported_after_its_last_messages() {
    let (rooms, mut outputs) = spawn(Options::default());
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "last words"))
        .await
        .expect("the event is accepted");
    idle().await;
    rooms.close(room).await.expect("the room is open");
    assert_eq!(next_text(&mut outputs).await, "last words");
    let Some(RoomOutput::Closed(closed)) = next(&mut outputs).await else {
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
async fn a_fault_is_reported() {
    let (rooms, mut outputs) = spawn(Options::default());
    let fails = guest_0_2(ENV, &[("message", "unreachable")], "");
    let room = open_with(&rooms, &module(&fails)).await;
    rooms
        .enqueue(room, text(ADA, "boom"))
        .await
        .expect("the event is accepted");
    let Some(RoomOutput::Closed(closed)) = next(&mut outputs).await else {
        panic!("not closed")
    };
    let fault = closed.fault.expect("a fault");
    assert_eq!(
        (fault.during, fault.cause),
        ("message", FaultCause::Trap(Trap::Unreachable))
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_output_channel_applies_backpressure_without_loss() {
    let (rooms, mut outputs) = spawn(options(4));
    let mut limits = Limits::default();
    limits.max_inbox_events = 8;
    let room = open_with(&rooms, &module_with(&echo(), &limits)).await;
    // Events are accepted only until the channel and the inbox are full.
    let mut accepted = 0;
    loop {
        match rooms.enqueue(room, text(ADA, accepted)).await {
            Ok(()) => accepted += 1,
            Err(EventError::InboxFull) => {
                idle().await;
                if rooms.enqueue(room, text(ADA, accepted)).await.is_err() {
                    break;
                }
                accepted += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(accepted < 100, "the queues are unbounded");
    }
    assert!(accepted >= 4 + 8, "{accepted}");
    // Then the rooms progress as outputs are received.
    for number in 0..accepted {
        assert_eq!(next_text(&mut outputs).await, number.to_string());
    }
    rooms
        .enqueue(room, text(ADA, "more"))
        .await
        .expect("the inbox has capacity again");
    assert_eq!(next_text(&mut outputs).await, "more");
}

#[tokio::test(start_paused = true)]
async fn timers_wait_for_channel_capacity_and_fire_once() {
    let (rooms, mut outputs) = spawn(options(1));
    let _room = open_with(&rooms, &clock()).await;
    // The first tick fills the channel and the second waits; a third does not fire meanwhile.
    sleep(Duration::from_millis(10_500)).await;
    let mut ticks = Vec::new();
    for _ in 0..3 {
        let Some(RoomOutput::Message {
            payload: OwnedPayload::Bytes(bytes),
            ..
        }) = next(&mut outputs).await
        else {
            panic!("no tick")
        };
        ticks.push((bytes[0], Instant::now()));
    }
    assert_eq!(
        ticks.iter().map(|(tick, _)| *tick).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(ticks[0].1, ticks[1].1, "both were pending");
}

/// A single task may alternate between sending and receiving, even if the channel is full.
#[tokio::test(start_paused = true)]
async fn closed_rooms_do_not_block_commands_when_the_channel_is_full() {
    let (rooms, mut outputs) = spawn(options(1));
    let echo = module(&echo());
    let mut keys = Vec::new();
    for number in 0..5 {
        keys.push(
            rooms
                .open(&number.to_string(), &echo)
                .await
                .expect("the room opens"),
        );
    }
    for key in &keys {
        rooms.close(*key).await.expect("the room is open");
    }
    idle().await;
    let last = timeout(Duration::from_secs(1), rooms.open("last", &echo)).await;
    last.expect("commands are still handled")
        .expect("the room opens");
    for key in keys {
        assert!(
            matches!(next(&mut outputs).await, Some(RoomOutput::Closed(closed)) if closed.key == key)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_when_its_handles_are_dropped() {
    let (rooms, mut outputs) = spawn(Options::default());
    open_with(&rooms, &clock()).await;
    let other = rooms.clone();
    drop(rooms);
    assert!(
        matches!(next(&mut outputs).await, Some(RoomOutput::Message { .. })),
        "a clone keeps the task running"
    );
    drop(other);
    // A pending timer does not keep the task running.
    let start = Instant::now();
    assert!(next(&mut outputs).await.is_none());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn queued_events_are_handled_after_the_handles_are_dropped() {
    let (rooms, mut outputs) = spawn(options(2));
    let room = open_with(&rooms, &module(&echo())).await;
    for number in 0..50 {
        rooms
            .enqueue(room, text(ADA, number))
            .await
            .expect("the inbox has capacity");
    }
    rooms
        .close(
            rooms
                .open("other", &module(&echo()))
                .await
                .expect("the room opens"),
        )
        .await
        .expect("the room is open");
    drop(rooms);
    let mut texts = Vec::new();
    let mut closed = 0;
    while let Some(output) = next(&mut outputs).await {
        match output {
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
async fn events_that_wait_for_a_restart_are_handled_after_the_handles_are_gone() {
    let fail_at_bytes = guest_0_2(
        ENV,
        &[
            ("binary", "(unreachable)"),
            (
                "message",
                "(call $send_message (i32.const 0) (local.get 1) (local.get 2))",
            ),
        ],
        "",
    );
    let (rooms, mut outputs) = spawn(options(8).on_fault(FaultPolicy::Restart(Backoff::default())));
    let room = open_with(&rooms, &module(&fail_at_bytes)).await;
    let events = [OwnedEvent::message(ADA, b"x".to_vec()), text(ADA, "after")];
    for event in events {
        rooms.enqueue(room, event).await.expect("the room takes it");
    }
    drop(rooms);
    assert_eq!(next_text(&mut outputs).await, "after");
    assert!(next(&mut outputs).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn rooms_keep_running_when_the_receiver_is_dropped() {
    let (rooms, outputs) = spawn(options(1));
    let room = open_with(&rooms, &module(&echo())).await;
    drop(outputs);
    for number in 0..5000 {
        while rooms.enqueue(room, text(ADA, number)).await == Err(EventError::InboxFull) {
            yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_capacity_of_zero_means_one() {
    let (rooms, mut outputs) = spawn(options(0));
    let room = open_with(&rooms, &module(&echo())).await;
    rooms
        .enqueue(room, text(ADA, "hello"))
        .await
        .expect("the event is accepted");
    assert_eq!(next_text(&mut outputs).await, "hello");
}

#[cfg(feature = "snapshot")]
#[tokio::test(start_paused = true)]
async fn a_room_is_saved_hibernates_and_goes_on_elsewhere() {
    use stateroom_wasmi_host::{LoadOptions, SaveError, SnapshotOptions};
    let count =
        "(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $say (global.get $n))";
    let more = format!("{SAY} (global $n (mut i32) (i32.const 0))");
    let wasm = crate::support::assemble(&guest_0_2(ENV, &[("message", count)], &more));
    let options_for_snapshots = LoadOptions::new().snapshots(true);
    let module = Module::load_with(&wasm, &Limits::default(), options_for_snapshots)
        .expect("the module can be saved");

    let (here, mut outputs) = spawn(options(10));
    let room = open_with(&here, &module).await;
    here.enqueue(room, text(ADA, "a")).await.expect("it fits");
    assert!(next(&mut outputs).await.is_some());
    here.hibernate(room).await.expect("it is idle");
    let snapshot = here.save(room).await.expect("it is asleep");
    here.close(room).await.expect("it is open");
    assert!(matches!(
        next(&mut outputs).await,
        Some(RoomOutput::Closed(_))
    ));
    assert_eq!(here.save(room).await, Err(SaveError::UnknownRoom));

    let (there, mut outputs) = spawn(options(10));
    let room = there
        .load(&module, snapshot, SnapshotOptions::new())
        .await
        .expect("it loads");
    there
        .enqueue(room, text(ADA, "b"))
        .await
        .expect("its client is connected");
    let Some(RoomOutput::Message { payload, .. }) = next(&mut outputs).await else {
        panic!("the room replies");
    };
    assert_eq!(payload, OwnedPayload::Bytes(vec![2, 0, 0, 0]));
}
