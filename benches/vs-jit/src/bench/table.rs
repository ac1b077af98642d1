//! Rows, and the Markdown that shows them.

use super::measure::Figure;
use std::fmt::Write as _;

pub struct Row {
    pub title: String,
    pub group: Group,
    pub unit: Unit,
    /// The first is the reference of all ratios.
    pub figures: Vec<Figure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Start,
    Events,
    ColdRooms,
    Compute,
    Memory,
    Rooms,
    Size,
    Server,
    NoisyNeighbour,
    Fuel,
    Slices,
    Rollback,
    Payloads,
    Workers,
}

/// The unit of the values; for times and bytes, less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanos,
    /// Nanoseconds per operation, shown as operations per second.
    PerSecond,
    Bytes,
    Count,
    /// A multiple of another figure; less is better.
    Times,
    /// The inverse of the number that a process can hold, shown as the number.
    PerProcess,
}

impl Group {
    pub const ALL: [Self; 14] = [
        Self::Start,
        Self::Events,
        Self::ColdRooms,
        Self::Compute,
        Self::Memory,
        Self::Rooms,
        Self::Size,
        Self::Server,
        Self::NoisyNeighbour,
        Self::Fuel,
        Self::Slices,
        Self::Rollback,
        Self::Payloads,
        Self::Workers,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Start => "Starting",
            Self::Events => "Events per second, one thread",
            Self::ColdRooms => "Cold rooms: events given by turns to many rooms",
            Self::Compute => "Compute inside an event",
            Self::Memory => "Resident memory",
            Self::Rooms => "Rooms in one process",
            Self::Size => "Size",
            Self::NoisyNeighbour => "Noisy neighbour: an echo room beside one in an endless loop",
            Self::Server => "The whole server: WebSocket echo of 16 B, SDK 0.4 guest",
            Self::Fuel => "Fuel metering on and off",
            Self::Slices => "Lengths of slices",
            Self::Rollback => "Rollback: its cost while nothing fails",
            Self::Payloads => "Payloads: in a buffer that is kept, or allocated and freed for each",
            Self::Workers => "Two workers, each with its own module, against one",
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Start => "Times. The module is loaded from its bytes, with nothing cached.",
            Self::Events => {
                "One client, which gets a reply to each message. \"wasmi alone\" and the other \
                 engines run in the same minimal loop, without limits, fuel or time; the others \
                 are whole hosts."
            }
            Self::ColdRooms => {
                "Times of one event: a text of 16 B to one room after the other, so that with more \
                 rooms less of each is in the processor's caches; and these times as multiples of \
                 a single room's."
            }
            Self::Compute => "Times of one event of a C guest, with fuel metering in this crate.",
            Self::Memory => {
                "Measured in separate processes. Each room has a client that sent 8 messages."
            }
            Self::Server => {
                "Each server in its own process, the clients in another, all on this machine. \
                 Each connection sends its next message after the reply to the last. The \
                 published server has a single room."
            }
            Self::Rooms => {
                "Measured in separate processes, which try to open 50,000 rooms. Each has a \
                 client that sent 8 messages; in this crate it is then trimmed."
            }
            Self::Size => {
                "Stripped programs that open a room and send it messages: for this crate the \
                 example `virtual_time`, with default features. Release profiles with thin \
                 link-time optimisation, as for all figures. Crates are counted by `cargo tree`, \
                 with default features."
            }
            Self::NoisyNeighbour => {
                "Latency of the echo. The Host has both rooms on one thread, and the message \
                 arrives just before the other's slice. The server has all rooms on one worker, \
                 and ten clients, each with its own room and a message every 10 ms. A JIT host \
                 never replies again."
            }
            Self::Fuel | Self::Slices | Self::Rollback | Self::Payloads => "Times of one event.",
            Self::Workers => "Events of both workers together.",
        }
    }
}

impl Row {
    /// How many times better the first contender is than the second.
    pub fn factor(&self) -> Option<f64> {
        self.figures.get(1).map(|figure| figure.ratio)
    }
}

/// `3.1× faster`, or slower.
pub fn in_words(ratio: f64, unit: Unit) -> String {
    let (better, worse) = match unit {
        Unit::Nanos | Unit::PerSecond => ("faster", "slower"),
        Unit::Bytes | Unit::Times => ("less", "more"),
        Unit::Count => ("fewer", "more"),
        Unit::PerProcess => ("more", "fewer"),
    };
    match ratio {
        _ if !ratio.is_finite() => "–".into(),
        0.98..1.02 => "the same".into(),
        1.0.. => format!("{}× {better}", short(ratio)),
        _ => format!("{}× {worse}", short(1.0 / ratio)),
    }
}

/// Three digits.
fn short(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub fn value(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    match unit {
        Unit::Nanos if value < 1e3 => format!("{} ns", short(value)),
        Unit::Nanos if value < 1e6 => format!("{} µs", short(value / 1e3)),
        Unit::Nanos => format!("{} ms", short(value / 1e6)),
        Unit::PerSecond if value > 1e6 => format!("{}/s", short(1e9 / value)),
        Unit::PerSecond if value > 1e3 => format!("{} k/s", short(1e6 / value)),
        Unit::PerSecond => format!("{} M/s", short(1e3 / value)),
        Unit::Bytes if value < 1e6 => format!("{} KiB", short(value / 1024.0)),
        Unit::Bytes => format!("{} MiB", short(value / (1024.0 * 1024.0))),
        Unit::Count => format!("{value:.0}"),
        Unit::Times => format!("{}×", short(value)),
        Unit::PerProcess => format!("{:.0}", 1.0 / value),
    }
}

/// One table per group that has rows.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {}\n\n{}\n\n", group.title(), group.note());
        text.push_str(&table(group, &rows));
    }
    text
}

fn table(group: Group, rows: &[&Row]) -> String {
    // The two JIT hosts share a column: each guest runs in one of them.
    let column = |name: &str| {
        if name.starts_with("JIT") {
            "JIT host".to_owned()
        } else {
            name.to_owned()
        }
    };
    let mut columns: Vec<String> = Vec::new();
    for figure in rows.iter().flat_map(|row| &row.figures) {
        if !columns.contains(&column(&figure.name)) {
            columns.push(column(&figure.name));
        }
    }
    let mut text = format!(
        "| | {} | {} |",
        columns[0],
        columns.get(1).map_or("", String::as_str)
    );
    if columns.len() > 1 {
        let _ = write!(text, " {} is |", columns[0]);
    }
    for name in columns.iter().skip(2) {
        let _ = write!(text, " {name} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len().max(2) + 1));
    for row in rows {
        let cell = |name: &str| match row
            .figures
            .iter()
            .find(|figure| column(&figure.name) == name)
        {
            Some(figure) => value(figure.value, row.unit),
            None => "–".into(),
        };
        let _ = write!(text, "| {} | {} |", row.title, cell(&columns[0]));
        for (index, name) in columns.iter().enumerate().skip(1) {
            let ratio = row
                .figures
                .iter()
                .find(|figure| column(&figure.name) == *name)
                .map(|f| f.ratio);
            let words = ratio.map_or("–".into(), |ratio| in_words(ratio, row.unit));
            match index {
                1 => {
                    let _ = write!(text, " {} | {words} |", cell(name));
                }
                _ if ratio.is_some() => {
                    let _ = write!(
                        text,
                        " {} ({}) |",
                        cell(name),
                        against(ratio.unwrap_or(1.0))
                    );
                }
                _ => text.push_str(" – |"),
            }
        }
        text.push('\n');
    }
    if let Some(mean) = geometric_mean(rows).filter(|_| group == Group::Compute) {
        let _ = writeln!(
            text,
            "\nGeometric mean: {} than the JIT host.",
            in_words(mean, Unit::Nanos)
        );
        for name in columns.iter().skip(2) {
            let ratios = rows
                .iter()
                .filter_map(|row| row.figures.iter().find(|f| f.name == *name));
            if let Some(mean) = mean_of(ratios.map(|figure| figure.ratio)) {
                let _ = writeln!(text, "Against {name}: {}.", in_words(mean, Unit::Nanos));
            }
        }
    }
    text
}

/// The value as a multiple of the first column's.
fn against(ratio: f64) -> String {
    format!("×{}", short(ratio))
}

fn geometric_mean(rows: &[&Row]) -> Option<f64> {
    mean_of(rows.iter().filter_map(|row| row.factor()))
}

fn mean_of(ratios: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_ratios_are_readable() {
        assert_eq!(value(412.3, Unit::Nanos), "412 ns");
        assert_eq!(value(41_230.0, Unit::Nanos), "41.2 µs");
        assert_eq!(value(500.0, Unit::PerSecond), "2.00 M/s");
        assert_eq!(value(1176.0 * 1024.0, Unit::Bytes), "1.15 MiB");
        assert_eq!(in_words(2.5, Unit::Nanos), "2.50× faster");
        assert_eq!(in_words(0.5, Unit::Bytes), "2.00× more");
    }
}
