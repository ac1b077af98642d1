//! Dice: rolls dice for the whole room, with random numbers from the host.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | a client connects | the hint below | the newcomer |
//! | `2d6` (two dice of six sides) | `client 1 rolled 2d6: 3 + 5 = 8` | everybody |
//! | `d20`, which means `1d20` | `client 1 rolled 1d20: 17` | everybody |
//! | any other text | the hint: `Say for example 2d6: 1 to 100 dice of 2 to 1000 sides.` | the sender |
//! | a binary message | nothing | |
//!
//! Spaces around the text do not matter, and `D` is as good as `d`.
//!
//! The random numbers come from WASI's `random_get`, so this room is built for `wasm32-wasip1`.

use stateroom_wasm::prelude::*;

const HINT: &str = "Say for example 2d6: 1 to 100 dice of 2 to 1000 sides.";
const NO_LUCK: &str = "The dice are lost: the host has no random numbers.";

#[stateroom_wasm]
struct Dice;

impl SimpleStateroomService for Dice {
    fn new(_room_id: &str, _context: &impl StateroomContext) -> Self {
        Dice
    }

    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        context.send_message(client, HINT);
    }

    fn message(&mut self, client: ClientId, message: &str, context: &impl StateroomContext) {
        let Some((dice, sides)) = parse(message) else {
            context.send_message(client, HINT);
            return;
        };
        match roll(client, dice, sides) {
            Ok(text) => context.send_message(MessageRecipient::Broadcast, &text),
            Err(_) => context.send_message(client, NO_LUCK),
        }
    }
}

/// Parses `2d6` as two dice of six sides, and `d6` as one.
fn parse(text: &str) -> Option<(u32, u32)> {
    let (dice, sides) = text.trim().split_once(['d', 'D'])?;
    let dice = if dice.is_empty() { 1 } else { number(dice)? };
    let sides = number(sides)?;
    ((1..=100).contains(&dice) && (2..=1000).contains(&sides)).then_some((dice, sides))
}

/// Parses digits only; Rust's parser would accept a sign, too.
fn number(digits: &str) -> Option<u32> {
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// Rolls the dice and returns the text.
fn roll(client: ClientId, dice: u32, sides: u32) -> Result<String, getrandom::Error> {
    let mut text = format!("client {} rolled {dice}d{sides}: ", u32::from(client));
    let mut total = 0;
    for i in 0..dice {
        let die = roll_one(sides)?;
        total += die;
        if i > 0 {
            text.push_str(" + ");
        }
        text.push_str(&die.to_string());
    }
    if dice > 1 {
        text.push_str(&format!(" = {total}"));
    }
    Ok(text)
}

/// A uniform number from 1 to `sides`.
fn roll_one(sides: u32) -> Result<u32, getrandom::Error> {
    // Rejection sampling: numbers above the last whole multiple of `sides` would make small sides
    // likelier. Rejection is rare; attempts are bounded, so that a host with constant numbers
    // cannot hang the room.
    let fair = u32::MAX - u32::MAX % sides;
    let mut random = 0;
    for _ in 0..16 {
        random = getrandom::u32()?;
        if random < fair {
            break;
        }
    }
    Ok(random % sides + 1)
}
