//! The events of a comparison: scripted and random.

use crate::runtime::Event;
use rand_chacha::{ChaCha8Rng, rand_core::RngCore};
use std::collections::VecDeque;

/// An [`Event`] that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedEvent {
    Connect(u32),
    Disconnect(u32),
    Text(u32, String),
    Binary(u32, Vec<u8>),
    Timer,
}

impl OwnedEvent {
    pub fn as_event(&self) -> Event<'_> {
        match self {
            Self::Connect(client) => Event::Connect(*client),
            Self::Disconnect(client) => Event::Disconnect(*client),
            Self::Text(client, text) => Event::text(*client, text),
            Self::Binary(client, bytes) => Event::binary(*client, bytes),
            Self::Timer => Event::Timer,
        }
    }
}

/// The kind of room a module is, which determines the messages that it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomKind {
    Echo,
    /// An echo with this maximum length of a message, in bytes.
    SmallEcho(usize),
    Counter,
    Chat,
    Clock,
    Cursors,
    Dice,
    Compute,
    Unknown,
}

impl RoomKind {
    /// From the name of the module's file.
    pub fn of(name: &str) -> Self {
        match name.split('-').next() {
            Some("echo") if name.contains("no-std") => Self::SmallEcho(1024),
            Some("echo") if name.contains("wat") => Self::SmallEcho(16 << 10),
            Some("echo") => Self::Echo,
            Some("counter") => Self::Counter,
            Some("chat") => Self::Chat,
            Some("clock") => Self::Clock,
            Some("cursors") => Self::Cursors,
            Some("dice") => Self::Dice,
            Some("compute") => Self::Compute,
            _ => Self::Unknown,
        }
    }

    const fn max_bytes(self) -> usize {
        match self {
            Self::SmallEcho(bytes) => bytes,
            Self::Compute => 8,
            _ => 100_000,
        }
    }

    /// Texts that the room understands, and near misses.
    const fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Echo | Self::SmallEcho(_) | Self::Clock | Self::Cursors => {
                &["hello", "", "\u{1f980} ü\0"]
            }
            Self::Counter => &[
                "+",
                "-",
                "+5",
                "-7",
                "=100",
                "42",
                "=-5",
                " + ",
                "",
                "+-1",
                "=9223372036854775807",
                "+9223372036854775807",
                "-9223372036854775808",
                "=-9223372036854775808",
                "9223372036854775808",
                "five",
                "\u{ff15}",
            ],
            Self::Chat => &[
                "hello",
                " hello ",
                "",
                "   ",
                "/who",
                "/nick ada",
                "/nick",
                "/nick guest9",
                "/nick bob",
                "/nick \u{1f980}",
                "/nick a\tb",
                "/nick abcdefghijklmnopqrstuvwxyz",
                "/quit",
                "\u{1f980}",
            ],
            Self::Dice => &[
                "2d6", "d20", " D6", "100d1000", "1d2", "0d6", "101d6", "2d1", "2d1001", "dice", "",
            ],
            Self::Compute => &["h", "s", "l", "f", "n", "?", ""],
            Self::Unknown => &[
                "hello",
                "",
                "+",
                "=5",
                "/nick ada",
                "/who",
                "2d6",
                "{\"a\":1}",
                "\u{1f980}",
            ],
        }
    }
}

/// A list of events, or a generator of random but possible ones.
pub enum Script {
    Scripted(VecDeque<OwnedEvent>),
    Random {
        kind: RoomKind,
        rng: Box<ChaCha8Rng>,
        remaining: usize,
        clients: Vec<u32>,
    },
}

impl Script {
    /// Covers connects and disconnects, all texts that the room understands, lengths around which
    /// buffers grow, and the timer.
    pub fn scripted(kind: RoomKind) -> Self {
        use OwnedEvent::{Binary, Connect, Disconnect, Text, Timer};
        const LAST_CLIENT: u32 = i32::MAX as u32;
        let mut events = vec![
            Timer,
            Connect(1),
            Timer,
            Connect(2),
            Connect(LAST_CLIENT),
            Timer,
        ];
        for text in kind.texts() {
            events.extend([1, 2, LAST_CLIENT].map(|client| Text(client, (*text).to_owned())));
            events.extend([Binary(2, text.as_bytes().to_vec()), Timer]);
        }
        for len in [
            0, 1, 4, 15, 16, 17, 255, 256, 257, 1023, 1024, 2000, 2001, 4096, 65_535, 65_536,
            99_999,
        ] {
            if len <= kind.max_bytes() {
                events.push(Text(1, "x".repeat(len)));
                events.push(Binary(
                    LAST_CLIENT,
                    (0..len).map(|i| (i * 7) as u8).collect(),
                ));
            }
        }
        events.extend([
            Disconnect(2),
            Timer,
            Connect(3),
            Text(3, "hello".into()),
            Disconnect(1),
            Disconnect(3),
        ]);
        events.extend([
            Text(LAST_CLIENT, "alone".into()),
            Timer,
            Disconnect(LAST_CLIENT),
            Timer,
            Timer,
        ]);
        events.extend([Connect(2), Timer, Text(2, "again".into())]);
        Self::Scripted(events.into())
    }

    /// This many random events.
    pub fn random(kind: RoomKind, rng: ChaCha8Rng, events: usize) -> Self {
        Self::Random {
            kind,
            rng: Box::new(rng),
            remaining: events,
            clients: Vec::new(),
        }
    }

    /// The next event. The timer fires only if it is set, as in a host.
    pub fn next(&mut self, timer_is_set: bool) -> Option<OwnedEvent> {
        match self {
            Self::Scripted(events) => loop {
                match events.pop_front()? {
                    OwnedEvent::Timer if !timer_is_set => {}
                    event => return Some(event),
                }
            },
            Self::Random {
                kind,
                rng,
                remaining,
                clients,
            } => {
                *remaining = remaining.checked_sub(1)?;
                Some(random(*kind, rng, clients, timer_is_set))
            }
        }
    }
}

fn random(
    kind: RoomKind,
    rng: &mut ChaCha8Rng,
    clients: &mut Vec<u32>,
    timer_is_set: bool,
) -> OwnedEvent {
    const MAX_CLIENTS: usize = 12;
    let dice = below(rng, 100);
    if timer_is_set && dice >= 90 {
        return OwnedEvent::Timer;
    }
    if clients.is_empty() || (dice < 6 && clients.len() < MAX_CLIENTS) {
        let client = loop {
            let client = match below(rng, 10) {
                0 => rng.next_u32() >> 1,
                small => small as u32,
            };
            // Few numbers, so that ids are reused.
            if client > 0 && !clients.contains(&client) {
                break client;
            }
        };
        clients.push(client);
        return OwnedEvent::Connect(client);
    }
    let index = below(rng, clients.len());
    if dice < 11 {
        return OwnedEvent::Disconnect(clients.swap_remove(index));
    }
    let client = clients[index];
    match dice {
        11..60 => OwnedEvent::Text(client, known_text(kind, rng)),
        60..75 => {
            let len = length(kind, rng);
            OwnedEvent::Text(client, random_text(kind, rng, len))
        }
        _ => {
            let mut bytes = vec![0; length(kind, rng)];
            rng.fill_bytes(&mut bytes);
            OwnedEvent::Binary(client, bytes)
        }
    }
}

fn known_text(kind: RoomKind, rng: &mut ChaCha8Rng) -> String {
    let texts = kind.texts();
    // The kernels take long, above all in small slices.
    if kind == RoomKind::Compute && below(rng, 100) > 0 {
        return "?".to_owned();
    }
    let text = texts[below(rng, texts.len())];
    match (kind, below(rng, 4)) {
        (RoomKind::Counter, 0) => {
            format!("{}{}", ["+", "-", "=", ""][below(rng, 4)], rng.next_u32())
        }
        (RoomKind::Chat, 0) => format!("/nick n{}", below(rng, 20)),
        (RoomKind::Dice, 0) => format!("{}d{}", below(rng, 110), below(rng, 1100)),
        _ => text.to_owned(),
    }
}

/// Mostly short, sometimes long; powers of two and their neighbours are more likely.
fn length(kind: RoomKind, rng: &mut ChaCha8Rng) -> usize {
    let len = match below(rng, 20) {
        0..10 => below(rng, 40),
        10..16 => below(rng, 600),
        16..18 => (1 << below(rng, 17)) + below(rng, 3) - 1,
        18 => below(rng, 5_000),
        _ => below(rng, 100_000),
    };
    len.min(kind.max_bytes())
}

/// Text of `len` bytes with characters of one to four bytes.
fn random_text(kind: RoomKind, rng: &mut ChaCha8Rng, len: usize) -> String {
    if kind == RoomKind::Compute {
        return "?".repeat(len);
    }
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let character = match below(rng, 8) {
            0 => char::from_u32(0x80 + rng.next_u32() % 0x700),
            1 => char::from_u32(0x800 + rng.next_u32() % 0xf000),
            2 => char::from_u32(0x1_0000 + rng.next_u32() % 0x10_0000),
            _ => char::from_u32(rng.next_u32() % 0x80),
        };
        match character {
            Some(character) if text.len() + character.len_utf8() <= len => text.push(character),
            _ => text.push('x'),
        }
    }
    text
}

fn below(rng: &mut ChaCha8Rng, end: usize) -> usize {
    rng.next_u32() as usize % end
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn random_events_are_possible() {
        let mut script = Script::random(RoomKind::Chat, ChaCha8Rng::seed_from_u64(1), 5_000);
        let mut clients = Vec::new();
        let mut kinds = [0; 5];
        let mut step = 0;
        loop {
            step += 1;
            let Some(event) = script.next(step % 2 == 0) else {
                break;
            };
            let kind = match event {
                OwnedEvent::Connect(client) => {
                    assert!(client > 0 && client <= i32::MAX as u32 && !clients.contains(&client));
                    clients.push(client);
                    0
                }
                OwnedEvent::Disconnect(client) => {
                    assert!(clients.contains(&client));
                    clients.retain(|other| *other != client);
                    1
                }
                OwnedEvent::Text(client, _) => {
                    assert!(clients.contains(&client));
                    2
                }
                OwnedEvent::Binary(client, _) => {
                    assert!(clients.contains(&client));
                    3
                }
                OwnedEvent::Timer => {
                    assert_eq!(step % 2, 0, "no timer is set");
                    4
                }
            };
            kinds[kind] += 1;
        }
        assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
    }
}
