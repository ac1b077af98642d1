//! A transport that refuses, loses, and writes down what it takes.

use super::coverage::{Happened, Happening};
use crate::support::Random;
use stateroom_wasmi_host::{
    ClientId, MessagePayload, MessageRecipient, OutputMessage, RoomKey, SendError, Transport,
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

impl Unsteady {
    fn refuses(&mut self) -> bool {
        let refuses = match self.mood {
            Mood::Steady => false,
            Mood::Unsteady => self.random.below(3) == 0,
            Mood::Refusing => true,
        };
        if refuses {
            self.happened.count(Happening::Refusal);
        }
        refuses
    }
}

impl Transport for Unsteady {
    type Error = &'static str;

    fn send(
        &mut self,
        room: RoomKey,
        message: OutputMessage<'_>,
    ) -> Result<(), SendError<&'static str>> {
        if self.refuses() {
            return Err(SendError::WouldBlock);
        }
        let is_text = matches!(message.payload, MessagePayload::Text(_));
        let said = (
            message.recipient,
            is_text,
            message.payload.as_bytes().to_owned(),
        );
        self.seen.push((room, Seen::Said(said)));
        // What is lost was handed over once, too.
        if self.mood == Mood::Unsteady && self.random.below(8) == 0 {
            return Err(SendError::Failed("lost"));
        }
        Ok(())
    }

    fn connected(
        &mut self,
        room: RoomKey,
        client: ClientId,
    ) -> Result<(), SendError<&'static str>> {
        if self.refuses() {
            return Err(SendError::WouldBlock);
        }
        self.seen.push((room, Seen::Connected(client.0)));
        Ok(())
    }
}
