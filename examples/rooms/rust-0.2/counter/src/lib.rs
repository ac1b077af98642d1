//! Counter: one number that everybody in the room shares.
//!
//! | what happens | reply | to |
//! |---|---|---|
//! | a client connects | the count, such as `0` | the newcomer |
//! | `+` | the count, one higher | everybody |
//! | `-` | the count, one lower | everybody |
//! | `+N` or `-N` | the count, higher or lower by N | everybody |
//! | `=N` or `N` | the count, which is N now; `=-5` makes it negative | everybody |
//! | any other text | `Say +, -, +N, -N or =N.` | the sender |
//! | a binary message | nothing | |
//!
//! Spaces around the text do not matter. The count is a signed 64-bit number. It stops at the
//! ends of that range instead of wrapping around, and a number that does not fit is refused.

use stateroom_wasm::prelude::*;

#[stateroom_wasm]
struct Counter {
    count: i64,
}

impl SimpleStateroomService for Counter {
    fn new(_room_id: &str, _context: &impl StateroomContext) -> Self {
        Counter { count: 0 }
    }

    fn connect(&mut self, client: ClientId, context: &impl StateroomContext) {
        context.send_message(client, &self.count.to_string());
    }

    fn message(&mut self, client: ClientId, message: &str, context: &impl StateroomContext) {
        match changed(self.count, message.trim()) {
            Some(count) => {
                self.count = count;
                context.send_message(MessageRecipient::Broadcast, &count.to_string());
            }
            None => context.send_message(client, "Say +, -, +N, -N or =N."),
        }
    }
}

/// The count after `text` has been applied to it, or `None` if the text is invalid.
fn changed(count: i64, text: &str) -> Option<i64> {
    match text {
        "+" => return Some(count.saturating_add(1)),
        "-" => return Some(count.saturating_sub(1)),
        _ => {}
    }
    if let Some(number) = text.strip_prefix('+') {
        Some(count.saturating_add(unsigned(number)?))
    } else if let Some(number) = text.strip_prefix('-') {
        Some(count.saturating_sub(unsigned(number)?))
    } else if let Some(number) = text.strip_prefix('=') {
        number.parse().ok()
    } else {
        unsigned(text)
    }
}

/// Parses a number without a sign. Rust's parser would accept a sign, too, and `+-5` is more likely
/// a typo.
fn unsigned(digits: &str) -> Option<i64> {
    if digits.starts_with(|c: char| c.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}
