//! Reference implementation of the simulated guest: its state, and its outputs for an event.

use super::{
    faulty_transport::SentOutput,
    guest::{FLAKY_ID_BYTES, FUEL_PER_EVENT, MAX_MESSAGES, MAX_PAGES, Op, Tag},
};
use stateroom_wasmi_host::{ClientId, Fault, FaultCause, Instant, MessageRecipient, Trap};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// An event as the guest receives it.
#[derive(Clone, Debug)]
pub enum GuestEvent {
    Init { id_bytes: u32 },
    Connect(u32),
    Disconnect(u32),
    Ops(u32, Vec<Op>),
    Text(u32, String),
    Timer,
}

/// An output that the guest must send.
#[derive(Debug, PartialEq)]
pub enum ExpectedOutput {
    Exactly(SentOutput),
    /// The random number at this index.
    Random(usize),
}

/// The result of handling an event.
#[derive(Default)]
pub struct Outcome {
    pub outputs: VecDeque<ExpectedOutput>,
    pub fault: Option<Fault>,
}

/// The state of a guest between two events.
#[derive(Clone)]
pub struct ReferenceGuest {
    pub pages: u32,
    pub deadline: Option<Instant>,
    /// Whether memory growth was ever refused.
    refused: bool,
    /// The tags of the events that fail.
    armed: u32,
    count: u32,
    mixed: u32,
    /// The words written by `Op::Swap`, by address.
    words: BTreeMap<u32, u32>,
    draws: usize,
}

impl ReferenceGuest {
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

    /// Handles an event.
    pub fn handle(&mut self, event: &GuestEvent, now: Instant) -> Outcome {
        let mut outputs = VecDeque::new();
        let result = Run {
            guest: self,
            now,
            outputs: &mut outputs,
        }
        .handle(event);
        let fault = result.err().map(|cause| Fault {
            during: event.name(),
            cause,
        });
        Outcome { outputs, fault }
    }

    /// The fault that the event would cause.
    pub fn fails(&self, event: &GuestEvent, now: Instant) -> Option<Fault> {
        self.clone().handle(event, now).fault
    }
}

impl GuestEvent {
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
    guest: &'a mut ReferenceGuest,
    now: Instant,
    outputs: &'a mut VecDeque<ExpectedOutput>,
}

type Result = std::result::Result<(), FaultCause>;

impl Run<'_> {
    fn handle(mut self, event: &GuestEvent) -> Result {
        match event {
            GuestEvent::Init { id_bytes } => {
                self.header(Tag::Init, *id_bytes)?;
                match *id_bytes == FLAKY_ID_BYTES && self.now.as_millis() % 2 == 1 {
                    true => Err(self.unreachable()),
                    false => Ok(()),
                }
            }
            GuestEvent::Connect(client) => self.header(Tag::Connect, *client),
            GuestEvent::Disconnect(client) => self.header(Tag::Disconnect, *client),
            GuestEvent::Ops(client, ops) => {
                self.header(Tag::Binary, *client)?;
                ops.iter().try_for_each(|op| self.run(*op))
            }
            GuestEvent::Text(client, text) => {
                self.header(Tag::Text, *client)?;
                self.send(
                    MessageRecipient::Client(ClientId(*client)),
                    true,
                    text.as_bytes(),
                )
            }
            GuestEvent::Timer => {
                self.guest.deadline = None;
                self.header(Tag::Timer, 0)
            }
        }
    }

    fn header(&mut self, tag: Tag, argument: u32) -> Result {
        let tag = tag as u32;
        self.guest.count += 1;
        self.guest.mixed = self
            .guest
            .mixed
            .wrapping_mul(31)
            .wrapping_add(tag * 7 + argument);
        let (now, ReferenceGuest { count, mixed, .. }) = (self.now.as_nanos(), &self.guest);
        let header = [tag.to_le_bytes(), argument.to_le_bytes()].concat();
        let memory = [count.to_le_bytes(), mixed.to_le_bytes()].concat();
        self.send(
            MessageRecipient::Broadcast,
            false,
            &[header, now.to_le_bytes().into(), memory].concat(),
        )?;
        if self.guest.armed & (1 << tag) != 0 {
            return Err(self.unreachable());
        }
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result {
        match op {
            Op::Send { to, number } => return self.send_number(to, number),
            Op::SetTimer { ms } => {
                self.guest.deadline = (ms > 0).then(|| self.now + Duration::from_millis(ms.into()));
            }
            Op::Spin { .. } => {}
            Op::Grow { pages } => return self.grow(pages),
            Op::Flood { times, number } => {
                return (0..times).try_for_each(|_| self.send_number(0, number));
            }
            Op::Trap => return Err(self.unreachable()),
            Op::LoopForever => {
                return Err(FaultCause::OutOfFuel {
                    limit: FUEL_PER_EVENT,
                });
            }
            Op::Overflow => return Err(FaultCause::Trap(Trap::StackOverflow)),
            Op::Arm { tags } => self.guest.armed = tags,
            Op::Swap { at, number } => return self.swap(at, number),
            Op::Draw => {
                let index = self.guest.draws;
                self.guest.draws += 1;
                self.count_message()?;
                self.outputs.push_back(ExpectedOutput::Random(index));
            }
        }
        Ok(())
    }

    fn grow(&mut self, pages: u32) -> Result {
        let before = self.guest.pages;
        if before + pages > MAX_PAGES {
            self.guest.refused = true;
            return self.send_number(0, u32::MAX);
        }
        self.guest.pages += pages;
        self.send_number(0, before)
    }

    fn swap(&mut self, at: u32, number: u32) -> Result {
        if at >= self.guest.pages << 16 {
            return Err(FaultCause::Trap(Trap::MemoryOutOfBounds));
        }
        let before = self.guest.words.insert(at, number).unwrap_or_default();
        self.send_number(0, before)
    }

    fn send_number(&mut self, to: i32, number: u32) -> Result {
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
        self.outputs.push_back(ExpectedOutput::Exactly((
            recipient,
            is_text,
            bytes.to_owned(),
        )));
        Ok(())
    }

    fn count_message(&self) -> Result {
        match self.outputs.len() == MAX_MESSAGES {
            true => Err(FaultCause::TooManyMessages {
                limit: MAX_MESSAGES,
            }),
            false => Ok(()),
        }
    }

    fn unreachable(&self) -> FaultCause {
        FaultCause::Trap(if self.guest.refused {
            Trap::UnreachableOutOfMemory
        } else {
            Trap::Unreachable
        })
    }
}
