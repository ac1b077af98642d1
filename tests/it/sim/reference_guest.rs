//! What the guest of the simulation remembers, and what it says to an event.

use super::{
    faulty_transport::Said,
    guest::{FUEL_PER_EVENT, MAX_MESSAGES, MAX_PAGES, MOODY_ID_BYTES, Op, Tag},
};
use stateroom_wasmi_host::{ClientId, Fault, FaultCause, Instant, MessageRecipient, Trap};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// What a guest is told.
#[derive(Clone, Debug)]
pub enum Told {
    Init { id_bytes: u32 },
    Connect(u32),
    Disconnect(u32),
    Ops(u32, Vec<Op>),
    Text(u32, String),
    Timer,
}

/// What a guest must say.
#[derive(Debug, PartialEq)]
pub enum Expected {
    This(Said),
    /// Its next random number, of so many before.
    Drawn(usize),
}

/// What becomes of an event.
#[derive(Default)]
pub struct Outcome {
    pub said: VecDeque<Expected>,
    pub fault: Option<Fault>,
}

/// The state of a guest between two events.
#[derive(Clone)]
pub struct Twin {
    pub pages: u32,
    pub deadline: Option<Instant>,
    /// Whether its memory was ever refused to grow.
    refused: bool,
    /// The tags of the events that fail.
    armed: u32,
    count: u32,
    mixed: u32,
    /// What it was told to remember, by address.
    words: BTreeMap<u32, u32>,
    draws: usize,
}

impl Twin {
    pub const fn new() -> Self {
        Self {
            pages: 1,
            deadline: None,
            refused: false,
            armed: 0,
            count: 0,
            mixed: 0,
            words: BTreeMap::new(),
            draws: 0,
        }
    }

    /// Has the event happen.
    pub fn handle(&mut self, event: &Told, now: Instant) -> Outcome {
        let mut said = VecDeque::new();
        let result = Run {
            twin: self,
            now,
            said: &mut said,
        }
        .handle(event);
        let fault = result.err().map(|cause| Fault {
            during: event.name(),
            cause,
        });
        Outcome { said, fault }
    }

    /// Whether the event fails.
    pub fn fails(&self, event: &Told, now: Instant) -> Option<Fault> {
        self.clone().handle(event, now).fault
    }
}

impl Told {
    const fn name(&self) -> &'static str {
        match self {
            Self::Init { .. } => "initialize",
            Self::Connect(_) => "connect",
            Self::Disconnect(_) => "disconnect",
            Self::Ops(..) => "binary",
            Self::Text(..) => "message",
            Self::Timer => "timer",
        }
    }
}

/// A guest in the middle of an event.
struct Run<'a> {
    twin: &'a mut Twin,
    now: Instant,
    said: &'a mut VecDeque<Expected>,
}

type Result = std::result::Result<(), FaultCause>;

impl Run<'_> {
    fn handle(mut self, event: &Told) -> Result {
        match event {
            Told::Init { id_bytes } => {
                self.head(Tag::Init, *id_bytes)?;
                match *id_bytes == MOODY_ID_BYTES && self.now.as_millis() % 2 == 1 {
                    true => Err(self.unreachable()),
                    false => Ok(()),
                }
            }
            Told::Connect(client) => self.head(Tag::Connect, *client),
            Told::Disconnect(client) => self.head(Tag::Disconnect, *client),
            Told::Ops(client, ops) => {
                self.head(Tag::Binary, *client)?;
                ops.iter().try_for_each(|op| self.run(*op))
            }
            Told::Text(client, text) => {
                self.head(Tag::Text, *client)?;
                self.send(
                    MessageRecipient::Client(ClientId(*client)),
                    true,
                    text.as_bytes(),
                )
            }
            Told::Timer => {
                self.twin.deadline = None;
                self.head(Tag::Timer, 0)
            }
        }
    }

    fn head(&mut self, tag: Tag, argument: u32) -> Result {
        let tag = tag as u32;
        self.twin.count += 1;
        self.twin.mixed = self
            .twin
            .mixed
            .wrapping_mul(31)
            .wrapping_add(tag * 7 + argument);
        let (now, Twin { count, mixed, .. }) = (self.now.as_nanos(), &self.twin);
        let head = [tag.to_le_bytes(), argument.to_le_bytes()].concat();
        let memory = [count.to_le_bytes(), mixed.to_le_bytes()].concat();
        self.send(
            MessageRecipient::Broadcast,
            false,
            &[head, now.to_le_bytes().into(), memory].concat(),
        )?;
        if self.twin.armed & (1 << tag) != 0 {
            return Err(self.unreachable());
        }
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result {
        match op {
            Op::Say { to, number } => return self.say(to, number),
            Op::SetTimer { ms } => {
                self.twin.deadline = (ms > 0).then(|| self.now + Duration::from_millis(ms.into()));
            }
            Op::Spin { .. } => {}
            Op::Grow { pages } => return self.grow(pages),
            Op::Flood { times, number } => return (0..times).try_for_each(|_| self.say(0, number)),
            Op::Trap => return Err(self.unreachable()),
            Op::Forever => {
                return Err(FaultCause::OutOfFuel {
                    limit: FUEL_PER_EVENT,
                });
            }
            Op::Overflow => return Err(FaultCause::Trap(Trap::StackOverflow)),
            Op::Arm { tags } => self.twin.armed = tags,
            Op::Swap { at, number } => return self.swap(at, number),
            Op::Draw => {
                self.count_message()?;
                self.said.push_back(Expected::Drawn(self.twin.draws));
                self.twin.draws += 1;
            }
        }
        Ok(())
    }

    fn grow(&mut self, pages: u32) -> Result {
        let before = self.twin.pages;
        if before + pages > MAX_PAGES {
            self.twin.refused = true;
            return self.say(0, u32::MAX);
        }
        self.twin.pages += pages;
        self.say(0, before)
    }

    fn swap(&mut self, at: u32, number: u32) -> Result {
        if at >= self.twin.pages << 16 {
            return Err(FaultCause::Trap(Trap::MemoryOutOfBounds));
        }
        let before = self.twin.words.insert(at, number).unwrap_or_default();
        self.say(0, before)
    }

    fn say(&mut self, to: i32, number: u32) -> Result {
        let client = ClientId(to.unsigned_abs());
        let recipient = match to {
            0 => MessageRecipient::Broadcast,
            1.. => MessageRecipient::Client(client),
            _ => MessageRecipient::EveryoneExcept(client),
        };
        self.send(recipient, false, &number.to_le_bytes())
    }

    fn send(&mut self, recipient: MessageRecipient, is_text: bool, bytes: &[u8]) -> Result {
        self.count_message()?;
        self.said
            .push_back(Expected::This((recipient, is_text, bytes.to_owned())));
        Ok(())
    }

    fn count_message(&self) -> Result {
        match self.said.len() == MAX_MESSAGES {
            true => Err(FaultCause::TooManyMessages {
                limit: MAX_MESSAGES,
            }),
            false => Ok(()),
        }
    }

    fn unreachable(&self) -> FaultCause {
        FaultCause::Trap(if self.twin.refused {
            Trap::UnreachableOutOfMemory
        } else {
            Trap::Unreachable
        })
    }
}
