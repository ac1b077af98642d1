//! A transport that refuses, loses, and writes down what it takes.

use super::coverage::{Happened, Happening};
use crate::support::Random;
use stateroom_wasmi_host::{
    ClientId, MessagePayload, MessageRecipient, Output, RoomKey, SendError, Transport,
};

/// An output: to whom, whether it is text, and the bytes.
pub type Said = (MessageRecipient, bool, Vec<u8>);

pub struct Unsteady {
    random: Random,
    pub mood: Mood,
    pub seen: Vec<(RoomKey, Seen)>,
    pub happened: Happened,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Mood {
    Steady,
    Unsteady,
    Refusing,
}

pub enum Seen {
    Connected(u32),
    Said(Said),
}

impl Unsteady {
    pub fn new(random: Random) -> Self {
        Self {
            random,
            mood: Mood::Steady,
            seen: Vec::new(),
            happened: Happened::default(),
        }
    }
}

impl Transport for Unsteady {
    type Error = &'static str;

    fn send(&mut self, room: RoomKey, output: Output<'_>) -> Result<(), SendError<&'static str>> {
        let is_refused = match self.mood {
            Mood::Steady => false,
            Mood::Unsteady => self.random.below(3) == 0,
            Mood::Refusing => true,
        };
        if is_refused {
            self.happened.count(Happening::Refusal);
            return Err(SendError::WouldBlock);
        }
        let is_text = matches!(output.payload, MessagePayload::Text(_));
        let said = (
            output.recipient,
            is_text,
            output.payload.as_bytes().to_owned(),
        );
        self.seen.push((room, Seen::Said(said)));
        // What is lost was handed over once, too.
        if self.mood == Mood::Unsteady && self.random.below(8) == 0 {
            return Err(SendError::Failed("lost"));
        }
        Ok(())
    }

    fn connected(&mut self, room: RoomKey, client: ClientId) {
        self.seen.push((room, Seen::Connected(client.0)));
    }
}
