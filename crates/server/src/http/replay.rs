//! What a stored room has done lately, for operators: its events since it was saved, run again.

use super::{
    admin::Admin,
    response::{self, Refusal, Response},
};
use crate::{
    config::ModuleLoader,
    journal::{Done, JournalError, LogEntries, Stored, StoredRoom},
    rooms::watches::Line,
};
use core::time::Duration;
use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use stateroom_wasmi_host::{
    EventRecord, Instant, Output, Room, SnapshotInfo, SnapshotOptions, WithSources,
};
use std::collections::VecDeque;
use tokio::{sync::oneshot, task::spawn_blocking, time::timeout};

/// Lines that are shown: the last ones.
const MAX_LINES: usize = 500;

/// Time for the journal to read a room.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(10);

impl Admin {
    pub(super) async fn replay(&self, id: &str) -> Result<Response, Refusal> {
        let permit = self.admit().await?.without_turn();
        let Some(journal) = &self.journal else {
            return Err(conflict("the rooms of this server are not stored"));
        };
        let stored = match wait(|done| journal.peek(id, done)).await? {
            Stored::Room(stored) => stored,
            Stored::Quarantined(reason) => {
                return Err(conflict(&format!("the room is in quarantine: {reason}")));
            }
            Stored::New(_) => {
                let reason = "there is no such room, or it is not stored\n";
                return Err(response::refusal(StatusCode::NOT_FOUND, reason));
            }
        };
        let info = SnapshotInfo::read(&stored.snapshot.room);
        let info = info.map_err(|error| conflict(&WithSources(&error).to_string()))?;
        let wasm = wait(|done| journal.load_module(info.module, done)).await?;
        let wasm = wasm.ok_or_else(|| conflict("the room's module was not kept"))?;
        let loader = self.loader.clone();
        // As much as a room does in half a minute, or would replay in some ten milliseconds.
        let replayed = spawn_blocking(move || replay(&stored, &info, &wasm, &loader)).await;
        let lines = match replayed {
            Ok(Ok(lines)) => lines,
            Ok(Err(reason)) => return Err(conflict(&reason)),
            Err(_) => return Err(conflict("the room cannot be replayed")),
        };
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-store"),
        ];
        Ok(permit.respond(lines, headers))
    }
}

fn conflict(reason: &str) -> Refusal {
    response::refusal(StatusCode::CONFLICT, format!("{reason}\n"))
}

/// Waits until the journal has done something.
async fn wait<T: Send + 'static>(submit: impl FnOnce(Done<T>)) -> Result<T, Refusal> {
    let (send, receive) = oneshot::channel();
    submit(Box::new(move |result| drop(send.send(result))));
    match timeout(JOURNAL_TIMEOUT, receive).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(error @ JournalError::Damaged(_)))) => {
            Err(conflict(&WithSources(&error).to_string()))
        }
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Err(response::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "the room cannot be read now\n",
        )),
    }
}

/// Server-sent events, as those of a watch.
fn replay(
    stored: &StoredRoom,
    info: &SnapshotInfo,
    wasm: &[u8],
    loader: &ModuleLoader,
) -> Result<Vec<u8>, String> {
    let module = loader
        .load(wasm)
        .map_err(|error| WithSources(&error).to_string())?;
    let room = Room::load(&module, &stored.snapshot.room, SnapshotOptions::new());
    let mut room = room.map_err(|error| WithSources(&error).to_string())?;
    let mut lines = Lines::default();
    for entry in LogEntries::new(&stored.tail) {
        let entry = entry.map_err(|error| error.to_string())?;
        let (record, _) = EventRecord::decode(entry.event).map_err(|error| error.to_string())?;
        let since_zero = record.at.saturating_duration_since(Instant::ZERO);
        let at = info.unix_time_at_zero.saturating_add(since_zero);
        lines.push(Line::of_event(at, &record.event));
        room.replay(&record).map_err(|error| error.to_string())?;
        loop {
            while let Some(output) = room.poll_output() {
                if let Output::Message(message) = output {
                    lines.push(Line::of_output(at, &message));
                }
            }
            if !room.is_unfinished() {
                break;
            }
            room.resume(record.at);
        }
    }
    Ok(lines.finish())
}

/// The last lines.
#[derive(Default)]
struct Lines {
    lines: VecDeque<Vec<u8>>,
    skipped: u64,
}

impl Lines {
    fn push(&mut self, line: Line<'_>) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.skipped += 1;
        }
        self.lines.push_back(line.json());
    }

    fn finish(self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.skipped > 0 {
            text.extend(format!(": {} lines before these are left out\n\n", self.skipped).bytes());
        }
        for line in self.lines {
            text.extend_from_slice(b"data: ");
            text.extend(line);
            text.extend_from_slice(b"\n\n");
        }
        text
    }
}
