//! Predicts the random numbers of a guest.

use super::guest::Op;
use stateroom_wasmi_host::{ClientId, Event, Instant, Module, Room, RoomOptions};

/// A second room with the same seed that only draws random numbers.
pub struct RngOracle {
    module: Module,
    seed: u64,
    room: Option<Room>,
    drawn: Vec<[u8; 8]>,
}

impl RngOracle {
    pub const fn new(module: Module, seed: u64) -> Self {
        Self {
            module,
            seed,
            room: None,
            drawn: Vec::new(),
        }
    }

    /// The random number at this index.
    pub fn number(&mut self, at: usize) -> [u8; 8] {
        while self.drawn.len() <= at {
            let number = self.draw();
            self.drawn.push(number);
        }
        self.drawn[at]
    }

    fn draw(&mut self) -> [u8; 8] {
        let room = self.room.get_or_insert_with(|| {
            let options = RoomOptions::new().seed(self.seed);
            let mut room = Room::new(&self.module, "", options).expect("the room opens");
            room.handle_event(Instant::ZERO, Event::Connect(ClientId(1)))
                .expect("the client may connect");
            room
        });
        let bytes: Vec<u8> = Op::Draw
            .words()
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        room.handle_event(Instant::ZERO, Event::message(ClientId(1), bytes.as_slice()))
            .expect("the room takes it");
        loop {
            while let Some(output) = room.poll_output() {
                // Its other outputs are headers, which are longer.
                if let Ok(number) = output
                    .message()
                    .map_or(&[][..], |message| message.payload.as_bytes())
                    .try_into()
                {
                    return number;
                }
            }
            room.resume(Instant::ZERO);
        }
    }
}
