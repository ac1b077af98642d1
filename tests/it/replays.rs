//! Rooms that are made again from a snapshot and the records of the events since.

use crate::{
    determinism::bundled,
    rollback::ledger,
    snapshots::{load_module, loaded, module_of, open},
    support::{Random, assemble, outputs, speaker},
};
use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Event, EventRecord, FaultPolicy, Host, Instant, Limits, ManualClock,
    MessageRecipient, Module, OpenError, Output, OutputMessage, OwnedPayload, RecordedEvent,
    ReplayError, Room, RoomKey, RoomOptions, SendError, Transport,
};
use std::{convert::Infallible, time::Duration};

type Said = (MessageRecipient, OwnedPayload);

/// What a room has done: its events, and what it has sent.
#[derive(Default)]
struct Journal {
    /// Each record, and how much was sent before it.
    records: Vec<(Vec<u8>, usize)>,
    sent: Vec<Said>,
}

impl Transport for Journal {
    type Error = Infallible;

    fn send(&mut self, _: RoomKey, output: OutputMessage<'_>) -> Result<(), SendError<Infallible>> {
        self.sent
            .push((output.recipient, output.payload.to_owned()));
        Ok(())
    }

    fn recorded(&mut self, _: RoomKey, record: EventRecord<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(EventRecord::decode(&bytes), Ok((record, &[][..])));
        self.records.push((bytes, self.sent.len()));
    }
}

/// Replays a record to its end; returns what the room sends.
fn replay(room: &mut Room, record: &[u8]) -> Result<Vec<Said>, ReplayError> {
    let (record, rest) = EventRecord::decode(record)?;
    assert!(rest.is_empty());
    room.replay(&record)?;
    let mut sent = Vec::new();
    loop {
        while let Some(output) = room.poll_output() {
            if let Output::Message(message) = output {
                sent.push((message.recipient, message.payload.to_owned()));
            }
        }
        if !room.is_unfinished() {
            return Ok(sent);
        }
        room.resume(record.at);
    }
}

/// Lets random events happen in a room of a host, many of them while it is busy, saves it now and then,
/// and makes it again from the last snapshot and the records since.
#[track_caller]
fn is_made_again(name: &str, wasm: &[u8], on_fault: FaultPolicy, texts: &[&str], fails: bool) {
    let mut random = Random::new();
    let limits = Limits::new().fuel_per_slice(2000);
    let module = load_module(wasm, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
    let clock = ManualClock::new();
    let mut host = Host::new(&clock, Journal::default()).with_fault_policy(on_fault);
    let room = host.open("room", &module).expect("it opens");
    host.set_recording(room, true).expect("it is open");
    let mut snapshot = host.save(room).expect("a room that starts can be saved");
    let mut recorded = 0;
    let mut faults = 0;
    for step in 0..150 {
        clock.advance(Duration::from_millis(random.below(400) as u64));
        for _ in 0..random.below(5) {
            let client = ClientId(1 + random.below(6) as u32);
            let text = texts[random.below(texts.len())];
            let event = match random.below(8) {
                0 => Event::Connect(client),
                1 => Event::Disconnect(client),
                2 => Event::message(client, text.as_bytes()),
                _ => Event::message(client, text),
            };
            // Those that make no sense are refused, and nothing has happened.
            let _ = host.enqueue(room, event);
        }
        // Not always to the end.
        host.poll(Budget::fuel(random.below(20_000) as u64));
        let Some(saved) = host.room(room).filter(|room| !room.is_closed()) else {
            break;
        };
        faults = saved.stats().faults;
        if random.below(20) == 0 {
            snapshot = host.save(room).expect("it can be saved");
            recorded = host.transport().records.len();
        }
        if random.below(10) == 0 {
            let _ = host.hibernate(room);
        }
        if random.below(10) > 0 {
            continue;
        }
        // The present event ends.
        let present = host.save(room).expect("it can be saved");
        let journal = host.transport();
        let mut again = loaded(&module, &snapshot);
        let mut sent = Vec::new();
        let mut sent_before = journal.sent.len();
        for (i, (record, before)) in journal.records[recorded..].iter().enumerate() {
            if i == 0 {
                sent_before = *before;
            }
            assert_eq!(sent.len(), before - sent_before, "{name}: step {step}");
            let replayed = replay(&mut again, record);
            sent.extend(replayed.unwrap_or_else(|error| panic!("{name}: {step}: {error}")));
        }
        assert_eq!(sent, journal.sent[sent_before..], "{name}: step {step}");
        let reference = loaded(&module, &present);
        // A restart is recorded when it happens.
        if !reference.is_restarting() {
            assert_eq!(again.poll_timeout(), reference.poll_timeout(), "{name}");
        }
        assert_eq!(again.stats().faults, reference.stats().faults, "{name}");
        // Counted as used is also what a rollback replays, which depends on the last snapshot.
        if on_fault != FaultPolicy::Rollback || reference.stats().faults == 0 {
            assert_eq!(again.fuel_used(), reference.fuel_used(), "{name}");
        }
    }
    assert!(host.transport().records.len() > 10, "{name}");
    assert_eq!(faults > 0, fails, "{name}");
}

#[test]
fn bundled_rooms_are_made_again() {
    let texts = ["+", "-", "roll", "2d6", "hello", "12 7", "name: Ann"];
    for (name, wasm) in bundled() {
        is_made_again(&name, &wasm, FaultPolicy::Close, &texts, false);
    }
}

#[test]
fn rooms_are_made_again_with_their_faults() {
    let wasm = assemble(&ledger());
    let backoff = Backoff::new()
        .first(Duration::from_millis(100))
        .longest(Duration::from_millis(500))
        .restarts(1000);
    let texts = ["\x01", "\x02", "\x07", "\x20", "\x63"];
    for policy in [
        FaultPolicy::Restart(backoff),
        FaultPolicy::Continue,
        FaultPolicy::Rollback,
    ] {
        is_made_again(&format!("ledger, {policy:?}"), &wasm, policy, &texts, true);
    }
}

#[test]
fn a_module_without_an_instance_is_recorded_at_each_attempt() {
    // Its start function fails.
    let module = module_of(&speaker(&[], "(func $fail unreachable) (start $fail)"));
    let options = RoomOptions::new().on_fault(FaultPolicy::Restart(Backoff::new().restarts(3)));
    let mut host = Host::new(ManualClock::new(), Journal::default());
    let room = host.open_with("room", &module, options).expect("it opens");
    host.set_recording(room, true).expect("it is open");
    let birth = host.save(room).expect("it can be saved");
    for _ in 0..10 {
        host.clock().advance(Duration::from_secs(100));
        host.poll(Budget::UNLIMITED);
    }
    let records = &host.transport().records;
    assert!(records.len() > 1);
    let mut again = loaded(&module, &birth);
    for (record, _) in records {
        replay(&mut again, record).expect("it did that before");
    }
    assert_eq!(again.stats().faults, records.len() as u64);
}

/// A guest that says how many messages it has got; with bytes, it uses more fuel.
fn counter() -> Module {
    let count =
        "(global.set $n (i32.add (global.get $n) (i32.const 1))) (call $say (global.get $n))";
    let more = format!("{count} (drop (i32.const 1))");
    module_of(&speaker(
        &[("message", count), ("binary", &more)],
        "(global $n (mut i32) (i32.const 0))",
    ))
}

/// The records of a room that is given these events.
fn record(room: &mut Room, events: &[Event<'_>]) -> Vec<Vec<u8>> {
    room.set_recording(true);
    let mut records = Vec::new();
    for (second, event) in (1..).zip(events) {
        room.handle_event(Instant::from_millis(second), *event)
            .expect("the room accepts it");
        while let Some(record) = room.poll_record() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            records.push(bytes);
        }
        outputs(room, Instant::from_millis(second));
    }
    records
}

#[test]
fn what_did_not_happen_there_is_refused_and_changes_nothing() {
    let module = counter();
    let start = open(&module).save().expect("it can be saved");
    let client = ClientId(1);
    let events = [
        Event::Connect(client),
        Event::message(client, "text"),
        Event::message(client, "text"),
    ];
    let records = record(&mut loaded(&module, &start), &events);
    let mut room = loaded(&module, &start);
    // One is missing.
    assert_eq!(replay(&mut room, &records[1]), Err(ReplayError::Diverged));
    replay(&mut room, &records[0]).expect("it is the first");
    let before = room.save();
    // Twice, of the future, of another guest, of a timer that is not set.
    assert_eq!(replay(&mut room, &records[0]), Err(ReplayError::Diverged));
    assert_eq!(replay(&mut room, &records[2]), Err(ReplayError::Diverged));
    let (mut other, _) = EventRecord::decode(&records[1]).expect("a record");
    other.fuel_used += 1;
    assert_eq!(room.replay(&other), Err(ReplayError::Diverged));
    other.fuel_used -= 1;
    for event in [
        RecordedEvent::Start,
        RecordedEvent::Timer,
        RecordedEvent::Rejoin(client),
        RecordedEvent::Outside(Event::Connect(client)),
        RecordedEvent::Outside(Event::message(ClientId(2), "not connected")),
    ] {
        other.event = event;
        assert_eq!(room.replay(&other), Err(ReplayError::Diverged));
    }
    assert_eq!(room.save(), before);
    for record in &records[1..] {
        replay(&mut room, record).expect("they are the next");
    }
}

#[test]
fn events_that_wait_in_a_snapshot_are_replayed_from_there() {
    let module = counter();
    let mut host = Host::new(ManualClock::new(), Journal::default());
    let room = host.open("room", &module).expect("it opens");
    host.set_recording(room, true).expect("it is open");
    host.poll(Budget::UNLIMITED);
    let client = ClientId(1);
    for event in [Event::Connect(client), Event::message(client, "waits")] {
        host.enqueue(room, event).expect("it is accepted");
    }
    let snapshot = host.save(room).expect("it can be saved");
    let recorded = host.transport().records.len();
    host.poll(Budget::UNLIMITED);
    host.enqueue(room, Event::message(client, "comes later"))
        .expect("it is accepted");
    host.poll(Budget::UNLIMITED);
    let waited: Vec<_> = host.transport().records[recorded..]
        .iter()
        .scan(loaded(&module, &snapshot), |room, (record, _)| {
            let (record, _) = EventRecord::decode(record).expect("a record");
            let waited = room.replay(&record).expect("it did that before");
            while room.poll_output().is_some() {}
            Some(waited)
        })
        .collect();
    assert_eq!(waited, [true, true, false]);
}

#[test]
fn hostile_records_are_refused() {
    let module = counter();
    let mut room = open(&module);
    let client = ClientId(1);
    let records = record(
        &mut room,
        &[Event::Connect(client), Event::message(client, "text")],
    );
    for record in &records {
        for length in 0..record.len() {
            let cut = EventRecord::decode(&record[..length]);
            assert_eq!(cut, Err(ReplayError::Malformed), "{length}");
        }
    }
    let mut random = Random::new();
    let mut decoded = 0;
    for _ in 0..20_000 {
        let mut bytes = records[random.below(2)].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.bytes(1)[0];
        }
        if let Ok((record, _)) = EventRecord::decode(&bytes) {
            decoded += 1;
            let mut room = open(&module);
            if room.replay(&record).is_ok() {
                outputs(&mut room, record.at);
            }
        }
    }
    assert!(decoded > 1000);
}

#[test]
fn a_host_reports_a_room_that_has_failed_when_it_was_replayed() {
    let module = module_of(&speaker(
        &[("message", "(call $say (i32.const 1)) (unreachable)")],
        "",
    ));
    for takes_outputs in [true, false] {
        let mut room = open(&module);
        let client = ClientId(1);
        let events = [Event::Connect(client), Event::message(client, "text")];
        for (second, event) in (1..).zip(events) {
            room.handle_event(Instant::from_millis(second), event)
                .expect("the room accepts it");
            while takes_outputs && room.poll_output().is_some() {}
        }
        assert_eq!(room.is_closed(), takes_outputs);
        let mut host = Host::new(ManualClock::new(), Journal::default());
        let key = host.insert(room, None).expect("the id is free");
        host.poll(Budget::UNLIMITED);
        let closed = host.poll_closed().expect("it is closed");
        assert_eq!(closed.key, key);
        assert!(closed.fault.is_some());
        assert_eq!(host.transport().sent.len(), usize::from(!takes_outputs));
    }
}

#[test]
fn a_host_takes_over_a_room_that_was_replayed() {
    let module = counter();
    let mut host = Host::new(ManualClock::new(), Journal::default());
    let mut room = open(&module);
    let client = ClientId(1);
    record(&mut room, &[Event::Connect(client)]);
    room.set_recording(false);
    let taken = room.fork().expect("it is at a boundary");
    let key = host.insert(room, None).expect("the id is free");
    let refused = host.insert(taken, None);
    assert!(matches!(refused, Err(OpenError::IdTaken)), "{refused:?}");
    host.enqueue(key, Event::message(client, "text"))
        .expect("the client is connected");
    host.poll(Budget::UNLIMITED);
    assert_eq!(host.transport().sent.len(), 1);
}
