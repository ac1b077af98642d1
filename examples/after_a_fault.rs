//! The effect of each fault policy on the same failing module.
//!
//! `cargo run --features snapshot --example after_a_fault`

use stateroom_wasmi_host::{
    Backoff, Budget, ClientId, Event, FaultPolicy, Host, Limits, LoadOptions, ManualClock, Module,
    RecordingTransport, RoomOptions,
};

/// Counts messages and replies to each with that many `x`; on the fourth, sends `oops` and traps.
const COUNTER: &str = r#"(module
    (import "env" "send_message" (func $send (param i32 i32 i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "xxxxoops")
    (global $count (mut i32) (i32.const 0))
    (func (export "jam_malloc") (param i32) (result i32) (i32.const 4096))
    (func (export "jam_free") (param i32 i32))
    (func (export "initialize") (param i32 i32))
    (func (export "connect") (param i32))
    (func (export "disconnect") (param i32))
    (func (export "timer"))
    (func (export "binary") (param i32 i32 i32))
    (func (export "message") (param i32 i32 i32)
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (if (i32.eq (global.get $count) (i32.const 4))
            (then (call $send (i32.const 0) (i32.const 4) (i32.const 4)) (unreachable)))
        (call $send (i32.const 0) (i32.const 0) (global.get $count))))"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = LoadOptions::default();
    options.snapshots = true;
    let module = Module::load_with(&wat::parse_str(COUNTER)?, &Limits::default(), options)?;

    for policy in [
        FaultPolicy::Close,
        FaultPolicy::Restart(Backoff::default()),
        FaultPolicy::Continue,
        FaultPolicy::Rollback,
    ] {
        let clock = ManualClock::new();
        let mut host = Host::new(&clock, RecordingTransport::new());
        let options = RoomOptions::new().on_fault(policy);
        let room = host.open_with("room", &module, options)?;
        host.enqueue(room, Event::Connect(ClientId(1)))?;
        for _ in 0..5 {
            // A closed room accepts no events.
            if host
                .enqueue(room, Event::message(ClientId(1), "count"))
                .is_err()
            {
                break;
            }
            // `poll` returns the time of the next restart.
            while let Some(wake_at) = host.poll(Budget::UNLIMITED) {
                clock.set(wake_at);
            }
        }
        let payloads: Vec<_> = host
            .transport()
            .sent
            .iter()
            .map(|sent| &sent.payload)
            .collect();
        println!("{policy}: {payloads:?}");
        match host.poll_closed().and_then(|closed| closed.fault) {
            Some(fault) => println!("  closed: {fault}"),
            None => println!(
                "  open; faults: {}",
                host.room(room).map_or(0, |room| room.stats().faults)
            ),
        }
    }
    Ok(())
}
