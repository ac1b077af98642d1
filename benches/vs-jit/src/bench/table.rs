//! Rows, and the Markdown that shows them.

use super::measure::Figure;
use std::fmt::Write as _;

pub struct Row {
    pub title: String,
    pub group: Group,
    pub unit: Unit,
    /// The first is the reference of all ratios.
    pub figures: Vec<Figure>,
    pub goal: Option<Goal>,
}

/// What the first contender is to reach.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// The name of the contender that it is compared with.
    pub against: &'static str,
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// A multiple of the other's value.
    AtMost(f64),
    /// A multiple of what the other does in the same time.
    AtLeast(f64),
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
    ServerC,
    BusyServerC,
    ServerSdk,
    BusyServerSdk,
    ServerWorkers,
    IdleConnections,
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
    /// Nanoseconds that a processor was busy.
    ProcessorNanos,
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
    pub const ALL: [Self; 19] = [
        Self::Start,
        Self::Events,
        Self::ColdRooms,
        Self::Compute,
        Self::Memory,
        Self::Rooms,
        Self::Size,
        Self::ServerC,
        Self::BusyServerC,
        Self::ServerSdk,
        Self::BusyServerSdk,
        Self::ServerWorkers,
        Self::IdleConnections,
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
            Self::ServerC => {
                "The whole server: WebSocket echo of 16 B, C guest, clients on one core"
            }
            Self::BusyServerC => {
                "The whole server: WebSocket echo of 16 B, C guest, clients on all cores"
            }
            Self::ServerSdk => {
                "The whole server: WebSocket echo of 16 B, SDK 0.4 guest, clients on one core"
            }
            Self::BusyServerSdk => {
                "The whole server: WebSocket echo of 16 B, SDK 0.4 guest, clients on all cores"
            }
            Self::ServerWorkers => "The whole server: two workers against one",
            Self::IdleConnections => "Resident memory of 10,000 idle connections",
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
            Self::ServerC => {
                "Each server in its own process, with default settings but for its limits of one \
                 client, and the clients in another, all on this machine. Each connection sends its \
                 next message after the reply to the last. The clients have one thread, so that \
                 the server often waits for them. Processor time is the server's, in user mode and \
                 in the kernel. Axum alone is an echo without rooms that reads 4 KiB at once; with \
                 its default of 128 KiB, tungstenite fills those with zeros before each read. \
                 Rounds are fewer and longer than for other tables."
            }
            Self::BusyServerC => "As above, with a thread of clients for each core.",
            Self::ServerSdk => {
                "Measured in the same run, clients as above. The published server has a single \
                 room."
            }
            Self::BusyServerSdk => "As above, with a thread of clients for each core.",
            Self::ServerWorkers => {
                "Fifty connections, each to its own room. Needs a core for each worker, and more \
                 for the clients if the guest takes no longer than they do."
            }
            Self::IdleConnections => {
                "The server's resident memory with 10,000 connections, less that with one, for each \
                 of them; that of the kernel is not included. All are in one room of the C echo, or \
                 the SDK 0.4 echo of the published server."
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
        Unit::Bytes | Unit::Times | Unit::ProcessorNanos => ("less", "more"),
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
        Unit::Nanos | Unit::ProcessorNanos if value < 1e3 => format!("{} ns", short(value)),
        Unit::Nanos | Unit::ProcessorNanos if value < 1e6 => format!("{} µs", short(value / 1e3)),
        Unit::Nanos | Unit::ProcessorNanos => format!("{} ms", short(value / 1e6)),
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
    let has_goals = rows.iter().any(|row| row.goal.is_some());
    let _ = writeln!(
        text,
        "{}\n|---|{}{}",
        if has_goals { " goal |" } else { "" },
        "---:|".repeat(columns.len().max(2) + 1),
        if has_goals { "---|" } else { "" },
    );
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
        if has_goals {
            let _ = write!(
                text,
                " {} |",
                row.goal.map_or_else(String::new, |goal| goal.in_words(row))
            );
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

/// The column of a contender. The two JIT hosts share one: each guest runs in one of them.
fn column(name: &str) -> String {
    match name.strip_prefix("JIT ") {
        Some(name) if name.starts_with("server") => "JIT server".into(),
        Some(_) => "JIT host".into(),
        None => name.into(),
    }
}

impl Goal {
    /// `≤ 1.10× of axum alone: 0.86×, met`.
    fn in_words(self, row: &Row) -> String {
        let Some(other) = row
            .figures
            .iter()
            .find(|figure| figure.name == self.against)
        else {
            return String::new();
        };
        let (sign, bound, reached, is_met) = match self.bound {
            Bound::AtMost(bound) => ("≤", bound, 1.0 / other.ratio, 1.0 / other.ratio <= bound),
            Bound::AtLeast(bound) => ("≥", bound, other.ratio, other.ratio >= bound),
        };
        format!(
            "{sign} {}× of {}: {}×, {}",
            short(bound),
            column(self.against),
            short(reached),
            if is_met { "met" } else { "not met" },
        )
    }
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

    #[test]
    fn a_goal_is_beside_its_row() {
        let row = |unit, other: f64, goal| Row {
            title: "row".into(),
            group: Group::ServerSdk,
            unit,
            figures: vec![
                Figure::new("this crate", vec![100.0], &[100.0]),
                Figure::new("JIT server 0.4.4", vec![other], &[100.0]),
            ],
            goal,
        };
        let goal = |bound| {
            Some(Goal {
                against: "JIT server 0.4.4",
                bound,
            })
        };
        let rows = [
            row(Unit::Nanos, 80.0, goal(Bound::AtMost(1.2))),
            row(Unit::Nanos, 90.0, goal(Bound::AtMost(1.2))),
            // In half of the time per message, twice as many.
            row(Unit::PerSecond, 50.0, goal(Bound::AtLeast(1.0))),
            row(Unit::PerSecond, 200.0, goal(Bound::AtLeast(1.0))),
            row(Unit::Nanos, 80.0, None),
        ];
        let text = markdown(&rows);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            lines[0],
            "| | this crate | JIT server | this crate is | goal |"
        );
        assert_eq!(lines[1], "|---|---:|---:|---:|---|");
        for (line, goal) in lines[2..].iter().zip([
            "| ≤ 1.20× of JIT server: 1.25×, not met |",
            "| ≤ 1.20× of JIT server: 1.11×, met |",
            "| ≥ 1.00× of JIT server: 0.50×, not met |",
            "| ≥ 1.00× of JIT server: 2.00×, met |",
            "|  |",
        ]) {
            assert!(line.ends_with(goal), "{line}");
        }
    }
}
