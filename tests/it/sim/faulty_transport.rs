//! A transport that refuses, loses and records outputs.

use super::coverage::{CoverPoint, Coverage};
use crate::support::Random;
use stateroom_wasmi_host::{
    ClientId, MessagePayload, MessageRecipient, OutputMessage, RoomKey, SendError, Transport,
};

/// An output: the recipient, whether it is text, and the bytes.
pub type SentOutput = (MessageRecipient, bool, Vec<u8>);

pub struct FaultyTransport {
    random: Random,
    pub fault_mode: FaultMode,
    pub observed: Vec<(RoomKey, Observation)>,
    pub coverage: Coverage,
}

#[derive(Clone, Copy, PartialEq)]
pub enum FaultMode {
    Reliable,
    Flaky,
    Refusing,
}

pub enum Observation {
    Connected(u32),
    Output(SentOutput),
}

impl FaultyTransport {
    pub fn new(random: Random) -> Self {
        Self {
            random,
            fault_mode: FaultMode::Reliable,
            observed: Vec::new(),
            coverage: Coverage::default(),
        }
    }
}

impl FaultyTransport {
    fn refuses(&mut self) -> bool {
        let refuses = match self.fault_mode {
            FaultMode::Reliable => false,
            FaultMode::Flaky => self.random.below(3) == 0,
            FaultMode::Refusing => true,
        };
        if refuses {
            self.coverage.count(CoverPoint::SendRefused);
        }
        refuses
    }
}

impl Transport for FaultyTransport {
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
        let sent = (
            message.recipient,
            is_text,
            message.payload.as_bytes().to_owned(),
        );
        self.observed.push((room, Observation::Output(sent)));
        // Recorded even if lost: the host handed it over.
        if self.fault_mode == FaultMode::Flaky && self.random.below(8) == 0 {
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
        self.observed.push((room, Observation::Connected(client.0)));
        Ok(())
    }
}
