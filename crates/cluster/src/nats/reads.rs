//! What is read of the stream, from any replica.

use super::{Nats, ROOM_HEADER, Stored, StoredRecord, TIMEOUT};
use crate::{
    format::{RoomHeader, VERSION, decode_record, room_id},
    shard::Shard,
};
use async_nats::{Message, Request};
use futures_util::StreamExt;
use std::collections::HashMap;
use tokio::time::timeout;

/// What is read of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    Log,
    /// Snapshots, too.
    All,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// Of more subjects at once than NATS allows.
    TooManySubjects,
    /// NATS cannot be used at the moment.
    Unavailable,
}

/// Why the last record of a log was not read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastError {
    /// NATS cannot be used at the moment.
    Unavailable,
    /// The record, of this sequence number, is of this version, or damaged if that is the highest.
    Unreadable(u64, u8),
}

/// What a replica has.
pub(super) struct Replies {
    pub(super) messages: Vec<Message>,
    /// How many more it has.
    left: u64,
    /// Up to which sequence number it was asked.
    up_to: u64,
}

/// Messages, and about how many bytes, that are read at once.
const READ_BATCH: usize = 512;
const READ_BYTES: usize = 8 << 20;

/// Bytes of snapshots that are kept of those that are read of several shards at once.
const MAX_PARTS_BYTES: usize = 32 << 20;

impl Nats {
    /// The last record of a shard's log, as far as the server that is asked knows.
    pub(crate) async fn last(&self, shard: Shard) -> Result<Option<StoredRecord>, LastError> {
        let request = format!("{{\"last_by_subj\":\"{}\"}}", self.log(shard));
        let reply = self.get(request).await;
        let Some(message) = reply.map_err(|()| LastError::Unavailable)? else {
            return Ok(None);
        };
        let sequence = sequence(&message).ok_or(LastError::Unavailable)?;
        let version = message.payload.first().copied();
        let version = version.filter(|version| *version > VERSION);
        let unreadable = LastError::Unreadable(sequence, version.unwrap_or(u8::MAX));
        let (header, events) = decode_record(&message.payload).ok_or(unreadable)?;
        Ok(Some(StoredRecord {
            sequence,
            header,
            events: events.into(),
        }))
    }

    /// Reads what a replica has of a shard, in order, from a sequence number on; a bounded amount. Nothing is
    /// missing before the last that is returned but what was replaced by later ones.
    ///
    /// NATS looks for what is there of a whole shard in all that it has stored from there on, which takes long.
    pub(crate) async fn read(
        &self,
        shard: Shard,
        from: u64,
        filter: Filter,
    ) -> Result<Vec<Stored>, ()> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let filter = match filter {
            Filter::Log => self.log(shard),
            Filter::All => format!("{}.s.{shard}.>", self.names.prefix),
        };
        let request = format!(
            "{{\"seq\":{from},\"next_by_subj\":\"{filter}\",\"batch\":{READ_BATCH},\"max_bytes\":{READ_BYTES}}}"
        );
        let read = self.get_all(subject, request).await.map_err(drop)?;
        let stored = read.messages.iter().map(|it| self.stored(it));
        stored.collect::<Option<_>>().ok_or(())
    }

    /// Reads the first parts of the snapshots of the rooms of shards, as far as a replica has them: of those shards
    /// of which it has this last record of the log. Nobody must write to them meanwhile. Most of what was read is
    /// dropped at once: only headers are kept, and of the rooms that are `wanted` the parts, up to a bound.
    pub(crate) async fn read_rooms(
        &self,
        shards: &[(Shard, u64)],
        wanted: impl Fn(&RoomHeader) -> bool,
    ) -> Result<HashMap<Shard, Vec<Stored>>, ReadError> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let prefix = &self.names.prefix;
        let subjects = shards.iter().flat_map(|(shard, _)| {
            let log = format!("\"{}\"", self.log(*shard));
            [log, format!("\"{prefix}.s.{shard}.room.*.0\"")]
        });
        let subjects = subjects.collect::<Vec<_>>().join(",");
        let (mut all, mut range) = (HashMap::<_, Vec<_>>::new(), String::new());
        let mut space = MAX_PARTS_BYTES;
        loop {
            let request = format!(
                "{{\"multi_last\":[{subjects}],\"batch\":{READ_BATCH},\"max_bytes\":{READ_BYTES}{range}}}"
            );
            let read = self.get_all(subject.clone(), request).await?;
            let mut last = 0;
            for message in &read.messages {
                let shard = self.shard_of(message).ok_or(ReadError::Unavailable)?;
                let mut stored = self.stored(message).ok_or(ReadError::Unavailable)?;
                if let Stored::Room { header, part, .. } = &mut stored
                    && header.as_ref().is_some_and(&wanted)
                    && let Some(left) = space.checked_sub(message.payload.len())
                {
                    space = left;
                    *part = Some(message.payload[..].into());
                }
                last = stored.sequence();
                all.entry(shard).or_default().push(stored);
            }
            if read.left == 0 || read.messages.is_empty() {
                break;
            }
            range = format!(",\"seq\":{},\"up_to_seq\":{}", last + 1, read.up_to);
        }
        let record =
            |stored: &Stored| matches!(stored, Stored::Record(_)).then(|| stored.sequence());
        let is_there = |shard: &Shard, stored: &[Stored]| {
            let last = stored.iter().find_map(record);
            last.is_some_and(|last| shards.contains(&(*shard, last)))
        };
        all.retain(|shard, stored| {
            let is_there = is_there(shard, stored);
            stored.retain(|stored| record(stored).is_none());
            is_there
        });
        Ok(all)
    }

    /// Reads a snapshot, whose parts are one behind the other.
    pub(crate) async fn read_snapshot(
        &self,
        first: u64,
        header: &RoomHeader,
    ) -> Result<Option<Vec<u8>>, ()> {
        let mut bytes = Vec::new();
        for part in 0..u64::from(header.parts) {
            let request = format!("{{\"seq\":{}}}", first + part);
            let Some(message) = self.get(request).await? else {
                return Ok(None);
            };
            let found = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(ROOM_HEADER));
            if found.map(|found| found.as_str()) != Some(&*header.encode()) {
                return Ok(None);
            }
            bytes.extend_from_slice(&message.payload);
        }
        Ok(Some(bytes))
    }

    /// Loads a module that was kept; none if it was not.
    pub(crate) async fn load_module(&self, hash: &str) -> Result<Option<Vec<u8>>, ()> {
        let Some((first, parts)) = self.get_module_part(hash, 0).await? else {
            return Ok(None);
        };
        let mut wasm = first;
        for part in 1..parts {
            let (bytes, _) = self.get_module_part(hash, part).await?.ok_or(())?;
            wasm.extend(bytes);
        }
        Ok(Some(wasm))
    }

    /// A part of a module, and how many there are.
    pub(super) async fn get_module_part(
        &self,
        hash: &str,
        part: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, ()> {
        let subject = self.module(hash, part);
        let message = self
            .get(format!("{{\"last_by_subj\":\"{subject}\"}}"))
            .await?;
        let Some(message) = message else {
            return Ok(None);
        };
        let headers = message.headers.as_ref();
        let parts = headers.and_then(|headers| headers.get(ROOM_HEADER)?.as_str().parse().ok());
        Ok(Some((message.payload.to_vec(), parts.ok_or(())?)))
    }

    /// Gets one message from any replica; none if there is none.
    async fn get(&self, request: String) -> Result<Option<Message>, ()> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let request = Request::new()
            .payload(request.into())
            .timeout(Some(TIMEOUT));
        let reply = self.client.send_request(subject, request).await;
        let reply = reply.map_err(|error| log::debug!("cannot read: {error}"))?;
        match reply.status.map(|status| status.as_u16()) {
            None | Some(200) => Ok(Some(reply)),
            Some(404) => Ok(None),
            Some(status) => {
                log::debug!("cannot read: status {status}");
                Err(())
            }
        }
    }

    /// Gets several messages from any replica.
    pub(super) async fn get_all(
        &self,
        subject: String,
        request: String,
    ) -> Result<Replies, ReadError> {
        let inbox = self.client.new_inbox();
        let failed = |error: &dyn core::fmt::Display| {
            log::debug!("cannot read: {error}");
            ReadError::Unavailable
        };
        let mut replies = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| failed(&error))?;
        self.client
            .publish_with_reply(subject, inbox, request.into())
            .await
            .map_err(|error| failed(&error))?;
        let (mut all, mut last) = (Vec::new(), 0);
        loop {
            let reply = timeout(TIMEOUT, replies.next()).await;
            let reply = reply.map_err(|error| failed(&error))?;
            let reply = reply.ok_or_else(|| failed(&"the connection has ended"))?;
            // Each says which one it was sent behind: a connection between servers may have lost some.
            let previous = number(&reply, "Nats-Last-Sequence");
            if previous.is_some_and(|previous| previous != last) {
                return Err(failed(&format_args!("a reply was lost behind {last}")));
            }
            last = sequence(&reply).unwrap_or(last);
            match reply.status.map(|status| status.as_u16()) {
                None | Some(200) => all.push(reply),
                // The end, or nothing at all.
                Some(204 | 404) => {
                    return Ok(Replies {
                        messages: all,
                        left: number(&reply, "Nats-Num-Pending").unwrap_or(0),
                        up_to: number(&reply, "Nats-UpTo-Sequence").unwrap_or(0),
                    });
                }
                Some(413) => return Err(ReadError::TooManySubjects),
                Some(status) => return Err(failed(&format_args!("status {status}"))),
            }
        }
    }

    /// Of which shard a message is.
    fn shard_of(&self, message: &Message) -> Option<Shard> {
        let headers = message.headers.as_ref()?;
        let subject = headers.get("Nats-Subject")?.as_str();
        let subject = subject.strip_prefix(&self.names.prefix)?;
        let (shard, _) = subject.strip_prefix(".s.")?.split_once('.')?;
        Some(Shard(shard.parse().ok()?))
    }

    fn stored(&self, message: &Message) -> Option<Stored> {
        let sequence = sequence(message)?;
        let headers = message.headers.as_ref()?;
        let subject = headers.get("Nats-Subject")?.as_str();
        let known = || {
            let rest = subject
                .strip_prefix(&self.names.prefix)?
                .strip_prefix(".s.")?;
            let (_, rest) = rest.split_once('.')?;
            if rest == "log" {
                let (header, events) = decode_record(&message.payload)?;
                return Some(Stored::Record(StoredRecord {
                    sequence,
                    header,
                    events: events.into(),
                }));
            }
            let (token, part) = rest.strip_prefix("room.")?.split_once('.')?;
            let header = headers.get(ROOM_HEADER)?.as_str();
            let id = room_id(token)?;
            let header = match header {
                "removed" => None,
                header => Some(RoomHeader::decode(header)?),
            };
            Some(match part {
                "0" => Stored::Room {
                    sequence,
                    id,
                    header,
                    part: None,
                },
                // It is found from the first one.
                _ => Stored::Unknown {
                    sequence,
                    subject: String::new(),
                },
            })
        };
        let unknown = || Stored::Unknown {
            sequence,
            subject: subject.into(),
        };
        Some(known().unwrap_or_else(unknown))
    }
}

/// The sequence number of a message that was read.
pub(super) fn sequence(message: &Message) -> Option<u64> {
    number(message, "Nats-Sequence")
}

/// A number in a header of NATS's.
fn number(message: &Message, header: &str) -> Option<u64> {
    let headers = message.headers.as_ref()?;
    headers.get(header)?.as_str().parse().ok()
}
