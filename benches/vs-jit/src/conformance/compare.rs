//! What is compared, and when two answers are the same.

use crate::runtime::{Payload, Recipient, Said};
use std::fmt;

/// What one event led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In order.
    pub outputs: Vec<Output>,
    /// Nobody sees what an event asked of the timer before it is over, since a later request
    /// replaces an earlier one; so the last is compared.
    pub timer: TimerState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Text(Recipient, String),
    Binary(Recipient, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerState {
    Off,
    /// It was set by an event before, and is as it was.
    AsBefore,
    /// The event set it to this many milliseconds.
    Set(u32),
}

impl Answer {
    pub fn sets_timer(&self) -> bool {
        matches!(self.timer, TimerState::Set(_))
    }
}

impl Output {
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

/// Keeps the state of a room's timer by what the room says of it.
#[derive(Default)]
pub struct TimerWatch {
    is_set: bool,
}

impl TimerWatch {
    pub const fn is_set(&self) -> bool {
        self.is_set
    }

    /// The timer runs off, which it does once.
    pub fn fires(&mut self) {
        self.is_set = false;
    }

    pub fn answer(&mut self, said: Vec<Said>) -> Answer {
        let mut outputs = Vec::new();
        let mut request = None;
        for said in said {
            match said {
                Said::Text(to, text) => outputs.push(Output::Text(to, text)),
                Said::Binary(to, bytes) => outputs.push(Output::Binary(to, bytes)),
                Said::Timer(ms) => request = Some(ms),
            }
        }
        let timer = match request {
            Some(0) => TimerState::Off,
            Some(ms) => TimerState::Set(ms),
            None if self.is_set => TimerState::AsBefore,
            None => TimerState::Off,
        };
        self.is_set = timer != TimerState::Off;
        Answer { outputs, timer }
    }
}

/// Rolls of dice, such as `client 1 rolled 2d6: 3 + 5 = 8`: alike if they differ in nothing but the
/// numbers that were rolled, and each total is the sum.
pub struct Dice;

impl Dice {
    pub fn is_alike(theirs: &Answer, ours: &Answer) -> bool {
        theirs.timer == ours.timer
            && theirs.outputs.len() == ours.outputs.len()
            && theirs
                .outputs
                .iter()
                .zip(&ours.outputs)
                .all(|pair| match pair {
                    (Output::Text(to, text), Output::Text(our_to, our_text)) => {
                        to == our_to && shape(text).is_some() && shape(text) == shape(our_text)
                    }
                    (theirs, ours) => theirs == ours,
                })
    }
}

/// A roll without its numbers; any other text as it is; nothing if a roll is wrong.
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
        // One die needs no sum.
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

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        write!(f, "{} outputs, timer {:?}", self.outputs.len(), self.timer)?;
        for output in self.outputs.iter().take(SHOWN) {
            let (Output::Text(to, _) | Output::Binary(to, _)) = output;
            write!(f, "\n    to {to:?}: {:?}", output.payload())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(said: &[Said]) -> Answer {
        TimerWatch::default().answer(said.to_vec())
    }

    #[test]
    fn every_part_of_an_answer_counts() {
        let to = Recipient::Client(1);
        let text = Said::Text(to, "a".into());
        let plain = answer(std::slice::from_ref(&text));
        let doctored = [
            vec![],
            vec![Said::Text(to, "b".into())],
            vec![Said::Text(Recipient::EverybodyBut(1), "a".into())],
            vec![Said::Binary(to, b"a".to_vec())],
            vec![text.clone(), text.clone()],
            vec![text.clone(), Said::Timer(5)],
        ];
        assert_eq!(plain, answer(std::slice::from_ref(&text)));
        for said in doctored {
            assert_ne!(plain, answer(&said), "{said:?}");
        }
        assert_ne!(answer(&[Said::Timer(5)]), answer(&[Said::Timer(6)]));
        let other = Said::Text(to, "b".into());
        assert_ne!(
            answer(&[text.clone(), other.clone()]),
            answer(&[other, text])
        );
    }

    #[test]
    fn the_last_request_for_the_timer_counts_and_zero_is_none() {
        assert_eq!(
            answer(&[Said::Timer(5), Said::Timer(7)]).timer,
            TimerState::Set(7)
        );
        assert_eq!(answer(&[Said::Timer(5), Said::Timer(0)]), answer(&[]));
        let mut watch = TimerWatch::default();
        watch.answer(vec![Said::Timer(5)]);
        assert_eq!(watch.answer(vec![]).timer, TimerState::AsBefore);
        watch.fires();
        assert_eq!(watch.answer(vec![]).timer, TimerState::Off);
    }

    #[test]
    fn dice_have_to_add_up() {
        let roll = |text: &str| answer(&[Said::Text(Recipient::Everybody, text.into())]);
        let fair = roll("client 1 rolled 2d6: 3 + 5 = 8");
        assert!(Dice::is_alike(
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
            assert!(!Dice::is_alike(&fair, &roll(unfair)), "{unfair}");
        }
    }
}
