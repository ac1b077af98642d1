//! What is written to the stream, and deleted.

use super::{Nats, ROOM_HEADER, TIMEOUT};
use crate::{
    format::{
        Quarantine, RecordHeader, RoomHeader, encode_record, encode_snapshot, room_token,
        snapshot_bytes,
    },
    protocol::{Appended, RecordId},
    shard::Shard,
};
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use core::fmt;
use serde::Deserialize;
use stateroom_wasmi_server::journal::{RoomNumber, RoomSnapshot};

/// What is appended to a shard's log, with what becomes of snapshots at the same time.
#[derive(Debug)]
pub(crate) struct Record {
    /// As `LogEntries`.
    pub(crate) events: Vec<u8>,
    pub(crate) rooms: Vec<RoomRecord>,
}

/// What becomes of what is stored of a room.
#[derive(Debug)]
pub(crate) struct RoomRecord {
    pub(crate) id: Box<str>,
    pub(crate) number: RoomNumber,
    /// None if it is removed.
    pub(crate) snapshot: Option<RoomSnapshot>,
    pub(crate) quarantine: Option<Quarantine>,
}

/// Messages of a batch of JetStream; its limit is 1000.
pub(super) const MAX_BATCH: usize = 500;

/// Batches on their way at once. JetStream refuses more than 50 of a stream, which are those of all nodes, if its
/// `max_inflight_per_stream` says nothing else.
pub(super) const MAX_BATCHES: usize = 10;

impl Nats {
    /// Appends a record and, if that succeeds, replaces snapshots: all or nothing. If it fails, operators may be
    /// told.
    pub(crate) async fn append(
        &self,
        shard: Shard,
        expected: u64,
        header: RecordHeader,
        record: Option<&Record>,
        is_told: bool,
    ) -> Appended {
        let (events, rooms) = match record {
            Some(record) => (&*record.events, &*record.rooms),
            None => (&[][..], &[][..]),
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
        let mut messages = vec![(
            self.log(shard),
            headers,
            Bytes::from(encode_record(header, events)),
        )];
        for room in rooms {
            self.add_room(shard, room, &mut messages);
        }
        let count = messages.len() as u64;
        match self.publish(messages, header.id).await {
            // The record is the first of the batch.
            Ok(last) => match last.checked_sub(count - 1) {
                Some(sequence) => Appended::Done(sequence),
                None => Appended::Unknown,
            },
            Err(PublishError::WrongSequence) => Appended::WrongSequence,
            Err(error) => {
                log::log!(
                    level(is_told),
                    "shard {shard} is not written, and tried again: {error}"
                );
                match error {
                    PublishError::Refused(_) => Appended::Refused,
                    _ => Appended::Unknown,
                }
            }
        }
    }

    /// How many messages a snapshot takes.
    pub(crate) fn parts_of(&self, room: &RoomRecord) -> usize {
        let snapshot = room.snapshot.as_ref();
        let bytes = snapshot.map_or(0, |snapshot| {
            snapshot_bytes(snapshot, room.quarantine.as_ref())
        });
        parts(bytes, self.max_bytes())
    }

    /// Keeps a module, by its hash. If it fails, operators may be told.
    pub(crate) async fn keep_module(
        &self,
        hash: &str,
        wasm: &Bytes,
        is_told: bool,
    ) -> Result<(), ()> {
        if self.get_module_part(hash, 0).await?.is_some() {
            return Ok(());
        }
        let parts = parts(wasm.len(), self.max_bytes);
        // The first part is written last: then the others are there.
        for part in (0..parts).rev() {
            let mut headers = rollup();
            headers.insert(ROOM_HEADER, parts.to_string());
            let end = wasm.len().min((part + 1) * self.max_bytes);
            let bytes = wasm.slice(part * self.max_bytes..end);
            let length = bytes.len();
            let message = (self.module(hash, part), headers, bytes);
            self.publish_one(message, length).await.map_err(|error| {
                log::log!(
                    level(is_told),
                    "the module {hash} is not kept, for which what was written later waits: {error}"
                );
            })?;
        }
        Ok(())
    }

    /// Whether the stream takes anything at the moment.
    pub(crate) async fn takes_writes(&self) -> bool {
        let message = (self.module("probe", 0), rollup(), Bytes::new());
        self.publish_one(message, 0).await.is_ok()
    }

    /// Lets another server lead the logs, or the directory. One that leads may refuse writes for ever because
    /// of one that was lost on its way.
    pub(crate) async fn step_down(&self, of_logs: bool) {
        let prefix = if of_logs { "" } else { "KV_" };
        let subject = format!(
            "$JS.API.STREAM.LEADER.STEPDOWN.{prefix}{}",
            self.names.stream
        );
        let request = Request::new().payload(Bytes::new()).timeout(Some(TIMEOUT));
        // Fails if there is only one server.
        if let Err(error) = self.client.send_request(subject, request).await {
            log::debug!("the leader does not step down: {error}");
        }
    }

    /// Deletes the records of a shard before this one.
    pub(crate) async fn trim(&self, shard: Shard, before: u64) {
        self.purge(&self.log(shard), before).await;
    }

    /// Deletes what is left of a room up to a sequence number.
    pub(crate) async fn delete_room(&self, shard: Shard, id: &str, before: u64) {
        let token = room_token(id);
        let filter = format!("{}.s.{shard}.room.{token}.*", self.names.prefix);
        self.purge(&filter, before).await;
    }

    /// The same of some parts of its snapshot.
    pub(crate) async fn delete_parts(
        &self,
        shard: Shard,
        id: &str,
        parts: core::ops::Range<usize>,
        before: u64,
    ) {
        for part in parts {
            self.purge(&self.room(shard, id, part), before).await;
        }
    }

    fn add_room(
        &self,
        shard: Shard,
        room: &RoomRecord,
        messages: &mut Vec<(String, HeaderMap, Bytes)>,
    ) {
        let Some(snapshot) = &room.snapshot else {
            let mut headers = rollup();
            headers.insert(ROOM_HEADER, "removed");
            messages.push((self.room(shard, &room.id, 0), headers, Bytes::new()));
            return;
        };
        let quarantine = room.quarantine.as_ref();
        let bytes = Bytes::from(encode_snapshot(snapshot, quarantine));
        let max_bytes = self.max_bytes();
        let parts = parts(bytes.len(), max_bytes);
        let header = RoomHeader {
            number: room.number,
            events: snapshot.events,
            wake_at: snapshot.wake_at,
            parts: parts as u32,
            is_quarantined: quarantine.is_some(),
        };
        for part in 0..parts {
            let mut headers = rollup();
            headers.insert(ROOM_HEADER, header.encode());
            let end = bytes.len().min((part + 1) * max_bytes);
            let bytes = bytes.slice(part * max_bytes..end);
            messages.push((self.room(shard, &room.id, part), headers, bytes));
        }
    }

    /// Publishes one message, or an atomic batch of them. Returns the sequence number of the last.
    async fn publish(
        &self,
        messages: Vec<(String, HeaderMap, Bytes)>,
        id: RecordId,
    ) -> Result<u64, PublishError> {
        let other = |error: &dyn core::fmt::Display| PublishError::Other(error.to_string());
        let count = messages.len();
        let bytes = messages.iter().map(|(_, _, payload)| payload.len()).sum();
        let _permit = match count {
            0 | 1 => None,
            _ => self.batches.acquire().await.ok(),
        };
        let batch = format!(
            "{:x}.{:x}.{:x}.{}",
            id.node.0,
            id.epoch.0,
            id.number,
            random()
        );
        for (at, (subject, mut headers, payload)) in messages.into_iter().enumerate() {
            if count > 1 {
                headers.insert("Nats-Batch-Id", &*batch);
                headers.insert("Nats-Batch-Sequence", (at + 1).to_string());
            }
            if at + 1 < count {
                self.client
                    .publish_with_headers(subject, headers, payload)
                    .await
                    .map_err(|error| other(&error))?;
                continue;
            }
            if count > 1 {
                headers.insert("Nats-Batch-Commit", "1");
            }
            return self.publish_one((subject, headers, payload), bytes).await;
        }
        Err(PublishError::Other("there is nothing to publish".into()))
    }

    /// Publishes a message, the last of so many bytes; returns its sequence number.
    async fn publish_one(
        &self,
        (subject, headers, payload): (String, HeaderMap, Bytes),
        bytes: usize,
    ) -> Result<u64, PublishError> {
        // What is sent again while it is on its way makes NATS no faster.
        const BYTES_PER_TIMEOUT: usize = 4 << 20;
        let timeouts = 1 + u32::try_from(bytes / BYTES_PER_TIMEOUT).unwrap_or(u32::MAX - 1);
        let other = |error: &dyn core::fmt::Display| PublishError::Other(error.to_string());
        let request = Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(TIMEOUT.saturating_mul(timeouts)));
        let reply = self.client.send_request(subject, request).await;
        let reply = reply.map_err(|error| other(&error))?;
        let ack: Ack = serde_json::from_slice(&reply.payload).map_err(|error| other(&error))?;
        match ack.error {
            Some(error) if matches!(error.err_code, 10071 | 10164) => {
                Err(PublishError::WrongSequence)
            }
            // Others are for what is in the stream, or in the servers; 429 is for others' batches, and 10176 says that
            // the beginning of this one was lost.
            Some(error) if matches!(error.code, 400..=428) && error.err_code != 10176 => {
                Err(PublishError::Refused(error.description))
            }
            Some(error) => Err(PublishError::Other(error.description)),
            None => ack.seq.ok_or_else(|| other(&"it is not said where")),
        }
    }

    async fn purge(&self, filter: &str, before: u64) {
        let subject = format!("$JS.API.STREAM.PURGE.{}", self.names.stream);
        let payload = format!("{{\"filter\":\"{filter}\",\"seq\":{before}}}");
        let request = Request::new()
            .payload(payload.into())
            .timeout(Some(10 * TIMEOUT));
        // What is left does no harm.
        let reply = self.client.send_request(subject, request).await;
        let error = match reply.map(|reply| serde_json::from_slice::<Ack>(&reply.payload)) {
            Ok(Ok(Ack { error: None, .. })) => return,
            Ok(Ok(Ack { error, .. })) => error.unwrap_or_default().description,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        log::debug!("{filter} is not trimmed: {error}");
    }
}

/// A message that replaces those before of its subject.
fn rollup() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Rollup", "sub");
    headers
}

fn parts(bytes: usize, max_bytes: usize) -> usize {
    bytes.div_ceil(max_bytes).max(1)
}

/// Distinguishes requests with the same content.
fn random() -> String {
    let mut bytes = [0; 8];
    // It is worse without, as a batch that is sent again might be mixed with its first copy.
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_le_bytes(bytes))
}

enum PublishError {
    WrongSequence,
    /// For this reason, which is in the message.
    Refused(String),
    Other(String),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongSequence => f.write_str("wrong last sequence"),
            Self::Refused(reason) | Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Of a failure, which operators may be told of.
const fn level(is_told: bool) -> log::Level {
    match is_told {
        true => log::Level::Warn,
        false => log::Level::Debug,
    }
}

#[derive(Deserialize)]
struct Ack {
    seq: Option<u64>,
    error: Option<AckError>,
}

#[derive(Default, Deserialize)]
struct AckError {
    /// As of HTTP.
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}
