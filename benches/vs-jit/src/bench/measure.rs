//! Interleaved measurement: machines are shared and noisy, so contenders alternate A B A B, and the
//! ratios within each round are compared.

use std::time::{Duration, Instant};

/// One of several operations that are measured against each other.
pub struct Contender<'a> {
    pub name: &'static str,
    /// Runs the operation this many times and returns the time that it took.
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

    /// A function that measures its own time.
    pub fn timed(name: &'static str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// The approximate time of one contender in one round.
    pub turn: Duration,
}

/// The result of one contender.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    /// Its value divided by the first contender's: the median of the rounds' ratios.
    pub ratio: f64,
}

impl Figure {
    /// From a contender's values in each round, and the first contender's.
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

/// Measures nanoseconds per operation.
pub fn interleaved(contenders: &mut [Contender<'_>], effort: Effort) -> Vec<Figure> {
    let nanos = rounds(contenders, effort);
    contenders
        .iter()
        .zip(&nanos)
        .map(|(contender, own)| Figure::new(contender.name, own.clone(), &nanos[0]))
        .collect()
}

/// The nanoseconds per operation of each contender in each round.
pub fn rounds(contenders: &mut [Contender<'_>], effort: Effort) -> Vec<Vec<f64>> {
    let counts: Vec<u64> = contenders
        .iter_mut()
        .map(|contender| calibrate(contender, effort.turn))
        .collect();
    let mut nanos = vec![Vec::with_capacity(effort.rounds); contenders.len()];
    for round in 0..effort.rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let time = (contenders[index].run)(counts[index]);
            nanos[index].push(time.as_nanos() as f64 / counts[index] as f64);
        }
    }
    nanos
}

/// Returns how many operations fill a turn; also warms up.
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

/// The percentile `share` (0 to 1) of sorted times.
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
    fn ratios_are_within_a_round() {
        // A machine that slows down halfway does not change the ratio.
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
        let figures = interleaved(&mut contenders, effort);
        assert!((figures[1].ratio - 3.0).abs() < 0.2, "{figures:?}");
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
