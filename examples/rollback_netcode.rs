//! Rollback netcode: a game that does not wait for the other player. It goes on with the inputs that it
//! has; one that arrives late is handled where it belongs, by going back there and handling the later
//! ones again.
//!
//! `cargo run --release --features snapshot --example rollback_netcode`

use stateroom_wasmi_host::{
    ClientId, Event, Instant, Limits, LoadOptions, Module, RewindBuffer, Room, RoomOptions,
};
use std::{error::Error, time::Instant as Time};

/// Any room will do: all of them are deterministic. Here it is one that counts `+` and `-`.
const GAME: &[u8] = include_bytes!("rooms/wasm/counter-rust-0.4.wasm");

const HERE: ClientId = ClientId(1);
const THERE: ClientId = ClientId(2);

const FRAMES: usize = 600;
/// How late an input from the other side can be, in frames.
const MAX_DELAY: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let options = LoadOptions::new().snapshots(true);
    let module = Module::load_with(GAME, &Limits::default(), options)?;
    let mut game = open(&module)?;
    // The state at the end of each frame, as far back as an input can be late.
    let mut kept = RewindBuffer::new(MAX_DELAY + 1);
    kept.push(&game)?;

    let (mut corrections, mut replayed, mut spent) = (0, 0, std::time::Duration::ZERO);
    for now in 0..FRAMES {
        // The earliest frame of which the other player's input arrives now.
        let mut window = now.saturating_sub(MAX_DELAY)..now;
        let first = window.find(|frame| frame + delay(*frame) == now);
        let first = first.unwrap_or(now);
        let start = Time::now();
        if first < now {
            kept.rewind(&mut game, end_of(first))
                .ok_or("it is older than what is kept")?;
            corrections += 1;
        }
        for frame in first..=now {
            play(&mut game, frame, arrived(frame, now))?;
            kept.push(&game)?;
        }
        replayed += now - first;
        spent += start.elapsed();
    }

    // A game that had all inputs in time.
    let mut reference = open(&module)?;
    for frame in 0..FRAMES {
        play(&mut reference, frame, arrived(frame, FRAMES - 1))?;
    }
    assert_eq!(game.state_hash()?, reference.state_hash()?);
    println!(
        "{FRAMES} frames, {corrections} corrections that replayed {replayed} frames: the same state as \
         without delay ({}), {:.0} µs for each frame",
        game.state_hash()?,
        spent.as_secs_f64() * 1e6 / FRAMES as f64
    );
    Ok(())
}

fn open(module: &Module) -> Result<Room, Box<dyn Error>> {
    let mut room = Room::new(module, "duel", RoomOptions::new())?;
    for player in [HERE, THERE] {
        show(&mut room);
        room.handle_event(Instant::ZERO, Event::Connect(player))?;
    }
    show(&mut room);
    Ok(room)
}

/// Handles a frame with what is known of the other player.
fn play(room: &mut Room, frame: usize, there: Option<&str>) -> Result<(), Box<dyn Error>> {
    let now = end_of(frame + 1);
    room.handle_timeout(now);
    for (player, input) in [(HERE, input(HERE, frame)), (THERE, there)] {
        show(room);
        if let Some(input) = input {
            room.handle_event(now, Event::message(player, input))?;
        }
    }
    show(room);
    Ok(())
}

/// Room time at the end of a frame, counted from 1; a sixtieth of a second each.
const fn end_of(frame: usize) -> Instant {
    Instant::from_micros(frame as u64 * 1_000_000 / 60)
}

/// What a game would draw.
fn show(room: &mut Room) {
    while room.poll_output().is_some() {}
}

/// What a player does in a frame.
fn input(player: ClientId, frame: usize) -> Option<&'static str> {
    match scatter(player.0 as usize, frame) % 5 {
        0 => Some("+"),
        1 => Some("-"),
        _ => None,
    }
}

/// What is known at some frame of what the other player did in an earlier one.
fn arrived(frame: usize, now: usize) -> Option<&'static str> {
    input(THERE, frame).filter(|_| frame + delay(frame) <= now)
}

/// How late the other player's input of a frame is, in frames.
fn delay(frame: usize) -> usize {
    scatter(3, frame) % (MAX_DELAY + 1)
}

fn scatter(seed: usize, frame: usize) -> usize {
    (frame.wrapping_mul(0x9e37_79b1) ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x27d4_eb2f)
        >> 8
}
