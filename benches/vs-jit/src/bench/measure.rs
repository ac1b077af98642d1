//! Measuring by turns: machines are shared and noisy, so contenders run A B A B, and what counts is
//! the ratio within each round.

use std::time::{Duration, Instant};

/// One of those that are measured against each other.
pub struct Contender<'a> {
    pub name: &'static str,
    /// Does so many operations and answers how long they took.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Contender<'a> {
    /// An operation to repeat.
    pub fn new(name: &'static str, mut operation: impl FnMut() + 'a) -> Self {
        Self::timed(name, move |count| {
            let start = Instant::now();
            for _ in 0..count {
                operation();
            }
            start.elapsed()
        })
    }

    /// Something that measures itself.
    pub fn timed(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// How long one contender runs in one round, about.
    pub turn: Duration,
}

/// What was measured of one contender.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    /// Its value over that of the first contender: the median of the rounds' ratios where there are
    /// rounds.
    pub ratio: f64,
}

impl Figure {
    /// From what each round measured of a contender, and of the first one.
    pub fn new(name: &str, own: Vec<f64>, first: &[f64]) -> Self {
        let ratio = median(
            own.iter()
                .zip(first)
                .map(|(own, first)| own / first)
                .collect(),
        );
        Self {
            name: name.to_owned(),
            value: median(own),
            ratio,
        }
    }
}

/// Measures nanoseconds an operation.
pub fn by_turns(contenders: &mut [Contender<'_>], effort: Effort) -> Vec<Figure> {
    let counts: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| calibrate(contender, effort.turn))
        .collect();
    let mut nanos = vec![Vec::with_capacity(effort.rounds); contenders.len()];
    for round in 0..effort.rounds {
        let mut places: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            places.reverse();
        }
        for place in places {
            let time = (contenders[place].run)(counts[place]);
            nanos[place].push(time.as_nanos() as f64 / counts[place] as f64);
        }
    }
    contenders
        .iter()
        .zip(&nanos)
        .map(|(contender, own)| Figure::new(contender.name, own.clone(), &nanos[0]))
        .collect()
}

/// How many operations fill a turn; warms up, too.
fn calibrate(contender: &mut Contender<'_>, turn: Duration) -> u64 {
    let mut count = 1;
    loop {
        let time = (contender.run)(count);
        if time * 4 >= turn {
            let more = turn.as_secs_f64() / time.as_secs_f64().max(1e-9);
            return ((count as f64 * more) as u64).max(1);
        }
        count *= 2;
    }
}

/// What so large a share of the times is below; they are sorted.
pub fn percentile(nanos: &[u32], share: f64) -> f64 {
    nanos
        .get((nanos.len() as f64 * share) as usize)
        .map_or(f64::NAN, |nanos| f64::from(*nanos))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        // A machine that slows down in the middle does not change the ratio.
        let mut turn = 0;
        let factor = std::cell::RefCell::new(move || {
            turn += 1;
            if turn > 20 { 7 } else { 1 }
        });
        let slow = |base: u64| {
            let factor = &factor;
            move |count| Duration::from_nanos(base * count * factor.borrow_mut()())
        };
        let mut contenders = [
            Contender::timed("a", slow(1000)),
            Contender::timed("b", slow(3000)),
        ];
        let effort = Effort {
            rounds: 9,
            turn: Duration::from_micros(100),
        };
        let figures = by_turns(&mut contenders, effort);
        assert!((figures[1].ratio - 3.0).abs() < 0.2, "{figures:?}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
