//! NATS JetStream: the stream of logs and snapshots, the bucket of owners, and pings.

use crate::{
    config::ClusterConfig,
    error::ClusterError,
    format::{
        Quarantine, RecordHeader, RoomHeader, decode_record, encode_record, encode_snapshot,
        room_id, room_token, snapshot_bytes,
    },
    protocol::{Appended, CasResult, Owner, Placement, RecordId},
    shard::{Epoch, NodeId, Shard},
};
use async_nats::{
    Client, HeaderMap, Message, Request,
    jetstream::{self, kv, stream},
};
use bytes::Bytes;
use core::{fmt, time::Duration};
use futures_util::StreamExt;
use serde::Deserialize;
use stateroom_wasmi_server::journal::{RoomNumber, RoomSnapshot};
use std::{collections::HashMap, sync::Arc};
use tokio::{sync::Semaphore, time::timeout};

/// What a cluster has in NATS.
#[derive(Clone)]
pub(crate) struct Nats {
    client: Client,
    kv: kv::Store,
    names: Arc<Names>,
    /// Batches that may be on their way at once.
    batches: Arc<Semaphore>,
    max_bytes: usize,
}

struct Names {
    stream: String,
    /// Of all subjects.
    prefix: String,
}

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

/// A record of a shard's log.
#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    pub(crate) sequence: u64,
    pub(crate) header: RecordHeader,
    /// As `LogEntries`.
    pub(crate) events: Vec<u8>,
}

/// What was read of a shard.
pub(crate) enum Stored {
    /// A record of the log.
    Record(StoredRecord),
    /// The first part of a snapshot; none in place of one that was removed.
    Room {
        sequence: u64,
        id: String,
        header: Option<RoomHeader>,
    },
    /// It is of no known form.
    Unknown { sequence: u64, subject: String },
}

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

/// What a replica has.
struct Replies {
    messages: Vec<Message>,
    /// How many more it has.
    left: u64,
    /// Up to which sequence number it was asked.
    up_to: u64,
}

/// Messages, and about how many bytes, that are read at once.
const READ_BATCH: usize = 512;
const READ_BYTES: usize = 8 << 20;

/// Why the last record of a log was not read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastError {
    /// NATS cannot be used at the moment.
    Unavailable,
    /// The record, of this sequence number, is damaged or of another version.
    Unreadable(u64),
}

/// Time for a request.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What describes a snapshot, and which part of it a message is.
const ROOM_HEADER: &str = "Stateroom-Room";

/// Messages of a batch of JetStream; its limit is 1000.
pub(crate) const MAX_BATCH: usize = 500;

/// Batches on their way at once. JetStream refuses more than 50 of a stream, which are those of all nodes, if its
/// `max_inflight_per_stream` says nothing else.
const MAX_BATCHES: usize = 10;

impl Names {
    fn new(name: &str) -> Self {
        Self {
            stream: format!("STATEROOM_{name}"),
            prefix: format!("stateroom.{name}"),
        }
    }
}

impl Stored {
    pub(crate) const fn sequence(&self) -> u64 {
        match self {
            Self::Record(StoredRecord { sequence, .. })
            | Self::Room { sequence, .. }
            | Self::Unknown { sequence, .. } => *sequence,
        }
    }
}

impl Nats {
    /// Opens what is there, or makes it.
    pub(crate) async fn open(client: Client, config: &ClusterConfig) -> Result<Self, ClusterError> {
        let (names, replicas) = (Names::new(&config.name), config.replicas);
        let mut context = jetstream::new(client.clone());
        context.set_timeout(Duration::from_secs(2));
        let stream = stream::Config {
            name: names.stream.clone(),
            subjects: vec![
                format!("{}.s.>", names.prefix),
                format!("{}.module.>", names.prefix),
            ],
            num_replicas: replicas,
            storage: stream::StorageType::File,
            discard: stream::DiscardPolicy::New,
            // Nothing is deleted but what a node deletes.
            max_messages: -1,
            max_bytes: -1,
            duplicate_window: Duration::from_secs(1),
            allow_rollup: true,
            allow_direct: true,
            allow_atomic_publish: true,
            ..stream::Config::default()
        };
        let setup = |error: &dyn core::fmt::Display| ClusterError::Setup(error.to_string());
        let stream = context
            .get_or_create_stream(stream)
            .await
            .map_err(|error| setup(&error))?;
        let found = &stream.cached_info().config;
        if !(found.allow_atomic_publish && found.allow_rollup && found.allow_direct) {
            let reason = format!("the stream {} is another program's", names.stream);
            return Err(ClusterError::Storage(reason));
        }
        check_kept(found, config)?;
        let bucket = names.stream.clone();
        let kv = match context.get_key_value(&bucket).await {
            Ok(kv) => kv,
            Err(_) => {
                let bucket = kv::Config {
                    bucket,
                    history: 1,
                    num_replicas: replicas,
                    ..kv::Config::default()
                };
                // Another node may make it at the same time, which is the same.
                context
                    .create_key_value(bucket)
                    .await
                    .map_err(|error| setup(&error))?
            }
        };
        check_kept(&kv.stream.cached_info().config, config)?;
        Ok(Self::with(client, kv, names))
    }

    /// Opens what is there.
    pub(crate) async fn open_existing(client: Client, name: &str) -> Result<Self, ClusterError> {
        let names = Names::new(name);
        let kv = jetstream::new(client.clone())
            .get_key_value(&names.stream)
            .await
            .map_err(|error| ClusterError::Setup(error.to_string()))?;
        Ok(Self::with(client, kv, names))
    }

    fn with(client: Client, kv: kv::Store, names: Names) -> Self {
        /// For headers.
        const SLACK: usize = 16 << 10;
        // It stays as it is, since what is stored is in pieces of this length.
        let max_bytes = client.max_payload().saturating_sub(SLACK).max(SLACK);
        Self {
            client,
            kv,
            names: Arc::new(names),
            batches: Arc::new(Semaphore::new(MAX_BATCHES)),
            max_bytes,
        }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn kv(&self) -> &kv::Store {
        &self.kv
    }

    /// The subject of pings.
    pub(crate) fn pings(&self) -> String {
        format!("{}.pings", self.names.prefix)
    }

    /// The subject of new owners.
    pub(crate) fn owners(&self) -> String {
        format!("{}.owners", self.names.prefix)
    }

    /// The subject of a node's requests.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}.node.{node}", self.names.prefix)
    }

    /// The subject of a leaf's pings; `*` is all of them.
    pub(crate) fn leaf(&self, name: &str) -> String {
        format!("{}.leaf.{name}", self.names.prefix)
    }

    fn log(&self, shard: Shard) -> String {
        format!("{}.s.{shard}.log", self.names.prefix)
    }

    fn room(&self, shard: Shard, id: &str, part: usize) -> String {
        let token = room_token(id);
        format!("{}.s.{shard}.room.{token}.{part}", self.names.prefix)
    }

    /// Bytes of events, or of a part of a snapshot, that a message can have.
    pub(crate) const fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// A secret that is the same at all nodes, and random.
    pub(crate) async fn secret(&self, key: &str) -> Result<[u8; 32], ClusterError> {
        let failed = |error: &dyn core::fmt::Display| ClusterError::Setup(error.to_string());
        for _ in 0..20 {
            let found = self.kv.get(key).await.map_err(|error| failed(&error))?;
            if let Some(secret) = found {
                let secret = secret.as_ref().try_into();
                return secret.map_err(|_| ClusterError::Setup("the secret is damaged".into()));
            }
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
            // Fails if another node was faster.
            if self.kv.create(key, secret.to_vec().into()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Err(ClusterError::Setup("the secret cannot be read".into()))
    }

    /// What the directory says, as far as the server that is asked knows. A consumer would say it sooner, but
    /// ends with its server, which is noticed late.
    pub(crate) async fn directory(&self) -> Result<Vec<DirectoryEntry>, ()> {
        let bucket = format!("$KV.{}", self.names.stream);
        let request =
            format!("{{\"multi_last\":[\"{bucket}.own.*\",\"{bucket}.pin.*\"],\"batch\":1024}}");
        let subject = format!("$JS.API.DIRECT.GET.KV_{}", self.names.stream);
        let read = self.get_all(subject, request).await.map_err(drop)?;
        let entries = read.messages.iter().filter_map(|message| {
            let headers = message.headers.as_ref()?;
            let key = headers.get("Nats-Subject")?.as_str();
            let key = key.strip_prefix(&*bucket)?.strip_prefix('.')?;
            let is_put = headers.get("KV-Operation").is_none();
            DirectoryEntry::parse(key, is_put.then_some(&message.payload), sequence(message)?)
        });
        Ok(entries.collect())
    }

    /// What the directory says of one shard now.
    pub(crate) async fn owner(&self, shard: Shard) -> Option<DirectoryEntry> {
        let key = format!("own.{shard}");
        let entry = timeout(TIMEOUT, self.kv.entry(&*key)).await;
        let entry = entry.ok()?.ok()??;
        DirectoryEntry::parse(&key, Some(&entry.value), entry.revision)
    }

    /// Sets a shard's owner by compare-and-set; also returns whether it was refused, and did not just fail.
    pub(crate) async fn set_owner(
        &self,
        shard: Shard,
        owner: Owner,
        revision: u64,
    ) -> (CasResult, bool) {
        let value = format!("{} {}", owner.node, owner.epoch);
        let update = self
            .kv
            .update(format!("own.{shard}"), value.into(), revision);
        match timeout(TIMEOUT, update).await {
            Ok(Ok(revision)) => (CasResult::Done(revision), false),
            Ok(Err(error)) => {
                log::debug!("shard {shard} is not claimed: {error}");
                // Of two codes, one has no kind of its own.
                let is_refused = error.to_string().contains("wrong last sequence");
                (CasResult::Failed, is_refused)
            }
            Err(_) => (CasResult::Failed, false),
        }
    }

    /// Says where a shard is to be because of its load, by compare-and-set; returns the revision, or none.
    pub(crate) async fn place(&self, shard: Shard, node: &str, revision: u64) -> Option<u64> {
        let value = format!("{node}{BY_LOAD}");
        let update = self
            .kv
            .update(format!("pin.{shard}"), value.into(), revision);
        match timeout(TIMEOUT, update).await.ok()? {
            Ok(revision) => Some(revision),
            Err(error) => {
                log::debug!("shard {shard} is not placed: {error}");
                None
            }
        }
    }

    /// The last record of a shard's log, as far as the server that is asked knows.
    pub(crate) async fn last(&self, shard: Shard) -> Result<Option<StoredRecord>, LastError> {
        let request = format!("{{\"last_by_subj\":\"{}\"}}", self.log(shard));
        let reply = self.get(request).await;
        let Some(message) = reply.map_err(|()| LastError::Unavailable)? else {
            return Ok(None);
        };
        let sequence = sequence(&message).ok_or(LastError::Unavailable)?;
        let unreadable = LastError::Unreadable(sequence);
        let (header, events) = decode_record(&message.payload).ok_or(unreadable)?;
        Ok(Some(StoredRecord {
            sequence,
            header,
            events: events.into(),
        }))
    }

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

    /// How many messages a snapshot takes.
    pub(crate) fn parts_of(&self, room: &RoomRecord) -> usize {
        let snapshot = room.snapshot.as_ref();
        let bytes = snapshot.map_or(0, |snapshot| {
            snapshot_bytes(snapshot, room.quarantine.as_ref())
        });
        parts(bytes, self.max_bytes())
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

    /// Whether the stream takes anything at the moment.
    pub(crate) async fn takes_writes(&self) -> bool {
        let message = (self.module("probe", 0), rollup(), Bytes::new());
        self.publish_one(message, 0).await.is_ok()
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
    /// of which it has this last record of the log. Nobody must write to them meanwhile.
    pub(crate) async fn read_rooms(
        &self,
        shards: &[(Shard, u64)],
    ) -> Result<HashMap<Shard, Vec<Stored>>, ReadError> {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        let prefix = &self.names.prefix;
        let subjects = shards.iter().flat_map(|(shard, _)| {
            let log = format!("\"{}\"", self.log(*shard));
            [log, format!("\"{prefix}.s.{shard}.room.*.0\"")]
        });
        let subjects = subjects.collect::<Vec<_>>().join(",");
        let (mut all, mut range) = (HashMap::<_, Vec<_>>::new(), String::new());
        loop {
            let request = format!(
                "{{\"multi_last\":[{subjects}],\"batch\":{READ_BATCH},\"max_bytes\":{READ_BYTES}{range}}}"
            );
            let read = self.get_all(subject.clone(), request).await?;
            let mut last = 0;
            for message in &read.messages {
                let shard = self.shard_of(message).ok_or(ReadError::Unavailable)?;
                let stored = self.stored(message).ok_or(ReadError::Unavailable)?;
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

    /// Of which shard a message is.
    fn shard_of(&self, message: &Message) -> Option<Shard> {
        let headers = message.headers.as_ref()?;
        let subject = headers.get("Nats-Subject")?.as_str();
        let subject = subject.strip_prefix(&self.names.prefix)?;
        let (shard, _) = subject.strip_prefix(".s.")?.split_once('.')?;
        Some(Shard(shard.parse().ok()?))
    }

    /// Gets several messages from any replica.
    async fn get_all(&self, subject: String, request: String) -> Result<Replies, ReadError> {
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
    async fn get_module_part(
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

    fn module(&self, hash: &str, part: usize) -> String {
        format!("{}.module.{hash}.{part}", self.names.prefix)
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

/// Whether a stream that is there keeps what it has, as one that was made by this node does.
fn check_kept(found: &stream::Config, config: &ClusterConfig) -> Result<(), ClusterError> {
    let is_bounded = found.max_bytes > 0 || found.max_messages > 0;
    let reason = if found.num_replicas < config.replicas {
        format!(
            "has {} copies, and not {}",
            found.num_replicas, config.replicas
        )
    } else if found.storage != stream::StorageType::File {
        "is in memory".into()
    } else if found.persist_mode == Some(stream::PersistenceMode::Async) {
        "acknowledges what is not on the disk".into()
    } else if found.retention != stream::RetentionPolicy::Limits || !found.max_age.is_zero() {
        "does not keep messages until they are deleted".into()
    } else if is_bounded && found.discard != stream::DiscardPolicy::New {
        "deletes messages when it is full".into()
    } else {
        return Ok(());
    };
    let reason = format!("the stream {} {reason}", found.name);
    if config.is_unsafe {
        log::warn!("{reason}; what clients have seen may be lost");
        return Ok(());
    }
    Err(ClusterError::Storage(reason))
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

/// The sequence number of a message that was read.
fn sequence(message: &Message) -> Option<u64> {
    number(message, "Nats-Sequence")
}

/// A number in a header of NATS's.
fn number(message: &Message, header: &str) -> Option<u64> {
    let headers = message.headers.as_ref()?;
    headers.get(header)?.as_str().parse().ok()
}

/// Distinguishes requests with the same content.
fn random() -> String {
    let mut bytes = [0; 8];
    // It is worse without, as a batch that is sent again might be mixed with its first copy.
    let _ = getrandom::fill(&mut bytes);
    format!("{:016x}", u64::from_le_bytes(bytes))
}

/// An entry of the directory.
pub(crate) enum DirectoryEntry {
    Owner(Shard, Option<Owner>, u64),
    /// Where a shard is to be.
    Placement(Shard, Option<Placement>, u64),
}

impl DirectoryEntry {
    fn parse(key: &str, value: Option<&Bytes>, revision: u64) -> Option<Self> {
        let (kind, shard) = key.split_once('.')?;
        let shard = Shard(shard.parse().ok()?);
        match kind {
            "own" => {
                let owner = value.and_then(|value| parse_owner(value));
                Some(Self::Owner(shard, owner, revision))
            }
            "pin" => {
                let placement = value.and_then(|value| parse_placement(value));
                Some(Self::Placement(shard, placement, revision))
            }
            _ => None,
        }
    }
}

/// Behind the name of the node, in an entry that no operator has made.
const BY_LOAD: &str = " load";

/// Where a shard is to be, in an entry.
pub(crate) fn parse_placement(value: &[u8]) -> Option<Placement> {
    let text = core::str::from_utf8(value).ok()?;
    let by_load = text.strip_suffix(BY_LOAD);
    Some(Placement {
        node: by_load.unwrap_or(text).into(),
        is_pinned: by_load.is_none(),
    })
}

/// The owner in an entry.
pub(crate) fn parse_owner(value: &[u8]) -> Option<Owner> {
    let (node, epoch) = core::str::from_utf8(value).ok()?.split_once(' ')?;
    Some(Owner {
        node: NodeId(u64::from_str_radix(node, 16).ok()?),
        epoch: Epoch(epoch.parse().ok()?),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_loses_something_is_refused() {
        let config = ClusterConfig::new("nats://localhost", "a");
        assert_eq!(config.replicas, 3);
        let good = stream::Config {
            name: "STATEROOM_main".into(),
            num_replicas: 3,
            ..stream::Config::default()
        };
        let check = |change: &dyn Fn(&mut stream::Config)| {
            let mut found = good.clone();
            change(&mut found);
            check_kept(&found, &config)
        };
        check(&|_| {}).expect("it is right");
        // What is full may refuse more.
        check(&|found| {
            found.num_replicas = 5;
            found.max_bytes = 1 << 40;
            found.discard = stream::DiscardPolicy::New;
        })
        .expect("it is right");
        let bad: [&dyn Fn(&mut stream::Config); 7] = [
            &|found| found.num_replicas = 1,
            &|found| found.storage = stream::StorageType::Memory,
            &|found| found.persist_mode = Some(stream::PersistenceMode::Async),
            &|found| found.retention = stream::RetentionPolicy::WorkQueue,
            &|found| found.max_age = Duration::from_secs(3600),
            &|found| found.max_bytes = 1 << 40,
            &|found| found.max_messages = 1000,
        ];
        for (at, bad) in bad.into_iter().enumerate() {
            let refused = check(bad);
            assert!(matches!(refused, Err(ClusterError::Storage(_))), "{at}");
        }
    }
}
