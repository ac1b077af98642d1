//! Memory of connections on which nothing happens.

use super::{
    AXUM, AXUM_DEFAULT, JIT, THIS_CRATE,
    client::{Client, TEXT, frame},
    contenders::{Process, allow_open_files},
};
use crate::bench::{
    measure::{Effort, Figure},
    table::{Group, Row, Unit},
};
use anyhow::{Context, Result};
use tokio::runtime;

const CONNECTIONS: usize = 10_000;

/// The figures of one server in one round, for each connection.
struct Memory {
    /// After the handshake.
    connected: f64,
    /// After a message and its reply.
    used: f64,
}

/// Resident memory for each connection; all are in one room.
pub fn rows(effort: Effort) -> Result<Vec<Row>> {
    allow_open_files(CONNECTIONS as u64 + 100)?;
    let servers: [(&str, &[&str]); 4] = [
        (THIS_CRATE, &["ours", "--guest", "echo-c"]),
        (JIT, &["jit"]),
        (AXUM, &["axum"]),
        (AXUM_DEFAULT, &["axum", "--read-buffer", "131072"]),
    ];
    let mut turns: Vec<Vec<Memory>> = servers.iter().map(|_| Vec::new()).collect();
    // The same each time, nearly.
    for _ in 0..effort.rounds.clamp(1, 3) {
        for ((name, arguments), turns) in servers.iter().zip(&mut turns) {
            turns.push(measure(arguments).with_context(|| format!("{name}, idle connections"))?);
        }
    }
    let row = |title: &str, value: fn(&Memory) -> f64| {
        let values = |turns: &[Memory]| turns.iter().map(value).collect::<Vec<_>>();
        let first = values(&turns[0]);
        let figures = servers
            .iter()
            .zip(&turns)
            .map(|((name, _), turns)| Figure::new(name, values(turns), &first));
        Row {
            title: title.into(),
            group: Group::IdleConnections,
            unit: Unit::Bytes,
            figures: figures.collect(),
            goal: None,
        }
    };
    Ok(vec![
        row("a connection after its handshake", |memory| {
            memory.connected
        }),
        row("a connection after a message and its reply", |memory| {
            memory.used
        }),
    ])
}

fn measure(arguments: &[&str]) -> Result<Memory> {
    let process = Process::start(arguments)?;
    let frame = frame(TEXT)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The first one opens the room, and allocates what all share.
        let mut first = Client::connect(process.port, None).await?;
        first.exchange(&frame).await?;
        let before = process.resident_bytes()?;
        let each = |after: usize| (after as f64 - before as f64) / CONNECTIONS as f64;
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            let client = Client::connect(process.port, None).await;
            clients.push(client.with_context(|| format!("connection {number}"))?);
        }
        // The room has handled all that joined once it handles a later message.
        first.exchange(&frame).await?;
        let connected = each(process.resident_bytes()?);
        for client in &mut clients {
            client.exchange(&frame).await?;
        }
        Ok(Memory {
            connected,
            used: each(process.resident_bytes()?),
        })
    })
}
