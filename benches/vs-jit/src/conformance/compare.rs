//! The result of an event, and when two results are equal.

use crate::runtime::{Payload, Recipient, RoomOutput};
use std::fmt;

/// The result of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventResult {
    /// In order.
    pub messages: Vec<SentMessage>,
    /// The last request of the event: earlier ones are replaced before they have an effect.
    pub timer: TimerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentMessage {
    Text(Recipient, String),
    Binary(Recipient, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    Off,
    /// Set by an earlier event.
    Unchanged,
    /// The event set it to this many milliseconds.
    Set(u32),
}

impl EventResult {
    pub fn sets_timer(&self) -> bool {
        matches!(self.timer, TimerState::Set(_))
    }
}

impl SentMessage {
    pub fn len(&self) -> usize {
        self.payload().len()
    }

    fn payload(&self) -> Payload<'_> {
        match self {
            Self::Text(_, text) => Payload::Text(text),
            Self::Binary(_, bytes) => Payload::Binary(bytes),
        }
    }
}

/// Tracks the state of a room's timer from its requests.
#[derive(Default)]
pub struct TimerTracker {
    is_set: bool,
}

impl TimerTracker {
    pub const fn is_set(&self) -> bool {
        self.is_set
    }

    /// The timer fires, once.
    pub fn fire(&mut self) {
        self.is_set = false;
    }

    /// Applies the timer requests among the outputs of one event.
    pub fn event_result(&mut self, outputs: Vec<RoomOutput>) -> EventResult {
        let mut messages = Vec::new();
        let mut request = None;
        for output in outputs {
            match output {
                RoomOutput::Text(to, text) => messages.push(SentMessage::Text(to, text)),
                RoomOutput::Binary(to, bytes) => messages.push(SentMessage::Binary(to, bytes)),
                RoomOutput::Timer(ms) => request = Some(ms),
            }
        }
        let timer = match request {
            Some(Some(ms)) => TimerState::Set(ms),
            Some(None) => TimerState::Off,
            None if self.is_set => TimerState::Unchanged,
            None => TimerState::Off,
        };
        self.is_set = timer != TimerState::Off;
        EventResult { messages, timer }
    }
}

/// Rolls of dice, such as `client 1 rolled 2d6: 3 + 5 = 8`: equivalent if they differ only in the
/// numbers rolled, and each total is the sum.
pub struct Dice;

impl Dice {
    pub fn is_equivalent(theirs: &EventResult, ours: &EventResult) -> bool {
        theirs.timer == ours.timer
            && theirs.messages.len() == ours.messages.len()
            && theirs
                .messages
                .iter()
                .zip(&ours.messages)
                .all(|pair| match pair {
                    (SentMessage::Text(to, text), SentMessage::Text(our_to, our_text)) => {
                        to == our_to && shape(text).is_some() && shape(text) == shape(our_text)
                    }
                    (theirs, ours) => theirs == ours,
                })
    }
}

/// A roll without its numbers; any other text unchanged; `None` if a roll is invalid.
fn shape(text: &str) -> Option<(String, usize)> {
    let Some((start, roll)) = text
        .split_once(": ")
        .filter(|(start, _)| start.contains(" rolled "))
    else {
        return Some((text.to_owned(), 0));
    };
    let (count, sides) = start.rsplit_once(' ')?.1.split_once('d')?;
    let (count, sides): (usize, u32) = (count.parse().ok()?, sides.parse().ok()?);
    let (numbers, total) = match roll.rsplit_once(" = ") {
        Some((numbers, total)) => (numbers, Some(total.parse::<u32>().ok()?)),
        // One die has no sum.
        None => (roll, None),
    };
    let numbers: Vec<u32> = numbers
        .split(" + ")
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let is_fair =
        numbers.len() == count && numbers.iter().all(|number| (1..=sides).contains(number));
    let adds_up = total.is_none_or(|total| total == numbers.iter().sum::<u32>());
    (is_fair && adds_up).then(|| (start.to_owned(), count))
}

impl fmt::Display for EventResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(
            f,
            "{} messages, timer {:?}",
            self.messages.len(),
            self.timer
        )?;
        for message in self.messages.iter().take(SHOWN) {
            let (SentMessage::Text(to, _) | SentMessage::Binary(to, _)) = message;
            write!(f, "\n    to {to:?}: {:?}", message.payload())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outputs: &[RoomOutput]) -> EventResult {
        TimerTracker::default().event_result(outputs.to_vec())
    }

    #[test]
    fn every_part_of_a_result_is_compared() {
        let to = Recipient::Client(1);
        let text = RoomOutput::Text(to, "a".into());
        let plain = result(std::slice::from_ref(&text));
        let altered = [
            vec![],
            vec![RoomOutput::Text(to, "b".into())],
            vec![RoomOutput::Text(Recipient::EveryoneExcept(1), "a".into())],
            vec![RoomOutput::Binary(to, b"a".to_vec())],
            vec![text.clone(), text.clone()],
            vec![text.clone(), RoomOutput::Timer(Some(5))],
        ];
        assert_eq!(plain, result(std::slice::from_ref(&text)));
        for outputs in altered {
            assert_ne!(plain, result(&outputs), "{outputs:?}");
        }
        assert_ne!(
            result(&[RoomOutput::Timer(Some(5))]),
            result(&[RoomOutput::Timer(Some(6))])
        );
        let other = RoomOutput::Text(to, "b".into());
        assert_ne!(
            result(&[text.clone(), other.clone()]),
            result(&[other, text])
        );
    }

    #[test]
    fn the_last_timer_request_counts() {
        assert_eq!(
            result(&[RoomOutput::Timer(Some(5)), RoomOutput::Timer(Some(7))]).timer,
            TimerState::Set(7)
        );
        assert_eq!(
            result(&[RoomOutput::Timer(Some(5)), RoomOutput::Timer(None)]),
            result(&[])
        );
        let mut timer = TimerTracker::default();
        timer.event_result(vec![RoomOutput::Timer(Some(5))]);
        assert_eq!(timer.event_result(vec![]).timer, TimerState::Unchanged);
        timer.fire();
        assert_eq!(timer.event_result(vec![]).timer, TimerState::Off);
    }

    #[test]
    fn dice_must_add_up() {
        let roll = |text: &str| result(&[RoomOutput::Text(Recipient::Everyone, text.into())]);
        let fair = roll("client 1 rolled 2d6: 3 + 5 = 8");
        assert!(Dice::is_equivalent(
            &fair,
            &roll("client 1 rolled 2d6: 1 + 6 = 7")
        ));
        for unfair in [
            "client 1 rolled 2d6: 3 + 5 = 9",
            "client 1 rolled 2d6: 1 + 7 = 8",
            "client 1 rolled 2d6: 8 = 8",
            "client 2 rolled 2d6: 3 + 5 = 8",
            "client 1 rolled 3d6: 1 + 2 + 5 = 8",
            "hello",
        ] {
            assert!(!Dice::is_equivalent(&fair, &roll(unfair)), "{unfair}");
        }
    }
}
