//! A node: one task that drives the membership and the logs of its shards, and what it asks others to do.

mod batches;
mod events;
mod journal;
mod meter;
mod refusals;

pub(crate) use self::events::{Announcement, Event, NodeRequest, Ping};

use self::{
    batches::Batches,
    events::{watch_directory, watch_leaves, watch_owners, watch_pings, watch_requests},
    meter::Meter,
    refusals::Refusals,
};
use crate::{
    Rooms,
    directory::{ShardLocation, ShardTable},
    format::{RecordHeader, VERSION, shard_of},
    leaf::LEAF_SILENCE,
    metrics::NodeMetrics,
    nats::{DirectoryEntry, LastError, Nats, Stored as StoredMessage},
    owned::{Garbage, Owned, PartOf},
    protocol::{
        Action, Appended, CasResult, Gate, Leaves, MAX_OPEN, Membership, Owner, Phase, Placement,
        Request, ShardState,
    },
    reading::{Reading, read_shards},
    shard::{Epoch, NodeId, SHARDS, Shard},
};
use bytes::Bytes;
use core::time::Duration;
use stateroom_wasmi_server::{
    Location,
    journal::{Done, JournalError, RoomNumber, Stored},
    wait_for_peer_end,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
    time::sleep,
};

/// A node.
pub(crate) struct Node {
    config: NodeConfig,
    nats: Nats,
    membership: Membership,
    events: mpsc::UnboundedReceiver<Event>,
    sender: mpsc::UnboundedSender<Event>,
    table: Arc<ShardTable>,
    leaves: Leaves,
    metrics: Arc<NodeMetrics>,
    began_at: Instant,
    /// None until the server runs.
    rooms: Option<(Arc<dyn Rooms>, SocketAddr)>,
    owned: HashMap<Shard, Owned>,
    /// Shards that were taken and are to be read.
    to_read: Vec<Reading>,
    /// Shards whose rooms are being dropped, and in which epoch they are to be acquired then.
    abandoning: BTreeMap<Shard, Option<Epoch>>,
    /// Shards with something to append, in turn.
    ready: VecDeque<Shard>,
    is_ready: HashSet<Shard>,
    /// Appends that were not answered.
    appending: usize,
    requests: u64,
    batches: Batches,
    peers: HashMap<NodeId, PeerWatch>,
    draining: Vec<oneshot::Sender<()>>,
    /// Until NATS has taken the last ping.
    pinging: Option<JoinHandle<()>>,
    trimmed_at: Instant,
    meter: Meter,
    /// When shards were claimed.
    claimed_at: HashMap<Shard, (Epoch, Instant)>,
    /// Which rooms are restored next.
    gate: Gate<RoomNumber>,
    /// Whether the table for gateways may be out of date.
    is_changed: bool,
    /// Refusals of writes to the logs and to the directory, though nothing else was written.
    refusals: [Refusals; 2],
    has_ended: bool,
}

/// What a node is, and what it may have.
pub(crate) struct NodeConfig {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// Open rooms.
    pub(crate) max_rooms: Option<u64>,
    /// Rooms that are stored in the whole cluster.
    pub(crate) max_stored_rooms: Option<u64>,
}

/// What is known of another node, besides what the membership knows.
struct PeerWatch {
    address: SocketAddr,
    /// Waits for its end.
    watch: AbortHandle,
}

/// Appends that wait for an answer: more would only wait in NATS, and here what waits is put together.
const MAX_APPENDING: usize = 32;

/// Time until a request to the log is made again that was not answered as it should.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Time until a record is read again that is damaged, or of another version.
const UNREADABLE_INTERVAL: Duration = Duration::from_secs(5);

impl Node {
    pub(crate) fn new(
        nats: Nats,
        membership: Membership,
        config: NodeConfig,
        channel: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
        table: Arc<ShardTable>,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self {
            config,
            nats,
            membership,
            sender: channel.0,
            events: channel.1,
            table,
            leaves: Leaves::new(LEAF_SILENCE),
            metrics,
            began_at: Instant::now(),
            rooms: None,
            owned: HashMap::new(),
            to_read: Vec::new(),
            abandoning: BTreeMap::new(),
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            appending: 0,
            requests: 0,
            batches: Batches::default(),
            peers: HashMap::new(),
            draining: Vec::new(),
            pinging: None,
            trimmed_at: Instant::now(),
            meter: Meter::default(),
            claimed_at: HashMap::new(),
            gate: Gate::new(MAX_OPEN),
            is_changed: false,
            refusals: [Refusals::default(), Refusals::default()],
            has_ended: false,
        }
    }

    /// Runs until it is told to end.
    pub(crate) async fn run(mut self) {
        while !self.has_ended {
            let timeout = self.membership.poll_timeout();
            let timeout = timeout.saturating_sub(self.now());
            tokio::select! {
                biased;
                () = sleep(timeout), if self.rooms.is_some() => {
                    let now = self.now();
                    self.membership.handle_timeout(now);
                    self.is_changed = true;
                    if self.leaves.handle_timeout(now) {
                        self.update_leaves();
                    }
                    self.write_ends(true);
                    self.trim();
                    self.measure();
                    self.refuse_waiting();
                }
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    self.handle(event);
                    // What else has come, up to a bound, before the table is made again.
                    for _ in 0..256 {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.handle(event);
                    }
                }
                () = self.table.wanted() => {}
            }
            for shard in self.table.take_wanted() {
                let now = self.now();
                self.membership.handle_wanted(shard, now);
            }
            self.act();
            self.append();
            self.begin_reading();
            if core::mem::take(&mut self.is_changed) {
                self.update();
            }
        }
    }

    fn now(&self) -> Duration {
        self.began_at.elapsed()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.is_changed |= !event.is_of_log();
        match event {
            Event::Load(id, done) => self.load(id, done, false),
            Event::Peek(id, done) => self.load(id, done, true),
            Event::ListQuarantined(done) => {
                // Fails if nobody waits for it any more.
                let _ = done.send(self.list_quarantined());
            }
            Event::EndQuarantine(request) => self.end_quarantine(request),
            Event::QuarantinedRead(request, read) => self.write_released(request, read),
            Event::Restored(number) => self.restored(number),
            Event::SuspectLoaded(number, loaded, done) => {
                self.suspect_loaded(number, loaded, done);
            }
            Event::SuspectIsSlow(number) => self.suspect_is_slow(number),
            Event::Write(batch, done) => self.write(&batch, done),
            Event::ClaimRefused(shard) => self.refused(shard, false),
            Event::KeepModule(hash, wasm) => self.keep_module(hash, wasm),
            Event::LoadModule(hash, done) => self.load_module(hash, done),
            Event::ModuleKept(batch) => {
                self.batches.part_done(batch);
                self.batches.complete();
            }
            Event::Start(rooms, address) => {
                self.rooms = Some((rooms, address));
                watch_directory(self.nats.clone(), self.sender.clone());
                watch_pings(self.nats.clone(), self.sender.clone());
                watch_owners(self.nats.clone(), self.sender.clone());
                watch_leaves(self.nats.clone(), self.sender.clone());
                watch_requests(self.nats.clone(), self.config.id, self.sender.clone());
            }
            Event::Drain(done) => {
                self.draining.push(done);
                self.membership.drain(now);
            }
            Event::Leave(done) => {
                let ping = self.ping(true);
                let (nats, subject) = (self.nats.clone(), self.nats.pings());
                tokio::spawn(async move {
                    let _ = nats.client().publish(subject, ping).await;
                    let _ = nats.client().flush().await;
                    let _ = done.send(());
                });
            }
            Event::End => self.has_ended = true,
            Event::Released(shard, epoch, Ok(())) => {
                // It may have been taken again meanwhile.
                if self
                    .owned
                    .get(&shard)
                    .is_some_and(|owned| owned.epoch == epoch)
                {
                    self.remove(shard);
                }
                self.membership.handle_released(shard, epoch);
            }
            Event::Released(shard, epoch, Err(error)) => {
                log::warn!("shard {shard} is not given away: {error}");
                self.membership.handle_fenced(shard, epoch, now);
            }
            Event::Abandoned(shard) => {
                if let Some(Some(epoch)) = self.abandoning.remove(&shard) {
                    self.acquire(shard, epoch);
                }
            }
            Event::Ping(ping) => self.hear(&ping, now),
            Event::Leaf(name, ping, _permit) => {
                if self.leaves.handle_ping(&name, ping, now) {
                    self.update_leaves();
                }
            }
            Event::Gone(node) => {
                if let Some(peer) = self.peers.remove(&node) {
                    peer.watch.abort();
                    log::warn!("node {node} has ended");
                }
                self.membership.handle_gone(node, now);
            }
            Event::Owner(shard, owner, revision) => {
                self.membership.handle_owner(shard, owner, revision, now);
            }
            Event::Announced(it) => {
                let (shard, node, epoch) = (Shard(it.shard), NodeId(it.node), Epoch(it.epoch));
                let owner = Owner { node, epoch };
                let membership = &mut self.membership;
                membership.handle_owner(shard, Some(owner), it.revision, now);
                if it.is_active {
                    membership.handle_active(shard, owner, now);
                }
            }
            Event::Placement(shard, placement, revision) => {
                let membership = &mut self.membership;
                membership.handle_placement(shard, placement, revision, now);
            }
            Event::Measured(load) => self.measured(load, now),
            Event::DirectoryRead => self.membership.handle_directory_read(now),
            Event::Claimed(shard, epoch, result) => {
                if result != CasResult::Failed {
                    self.refusals[0].succeeded(shard);
                }
                self.membership.handle_claimed(shard, epoch, result, now);
                self.announce(shard);
            }
            Event::Transferred(shard, epoch, result) => {
                self.membership
                    .handle_transferred(shard, epoch, result, now);
                // The next owner waits for that.
                self.announce(shard);
            }
            Event::Last(shard, request, last) => {
                if let Some(owned) = self.owned.get_mut(&shard)
                    && owned.request == request
                {
                    match &last {
                        Ok(_) => owned.readable(),
                        Err(LastError::Unavailable) => owned.retry.failed(),
                        Err(LastError::Unreadable(sequence, version)) => {
                            owned.unreadable(*sequence);
                            self.is_changed = true;
                            refuse(owned.take_waiting());
                            // Whoever wrote it owns the shard: this node's last record was one before.
                            if owned.is_active && *sequence > owned.log.last() {
                                self.membership.handle_fenced(shard, owned.epoch, now);
                            } else {
                                let membership = &mut self.membership;
                                membership.handle_unreadable(shard, owned.epoch, *version, now);
                            }
                        }
                    }
                    let before = owned.log.last();
                    let last = last.as_ref().map(Option::as_ref).map_err(drop);
                    let is_as_before =
                        last.is_ok_and(|last| last.map_or(0, |last| last.sequence) == before);
                    let durable = owned.handle_last(last);
                    if let Ok(Some(last)) = last
                        && owned.log.is_fenced()
                    {
                        self.membership.handle_epoch(shard, last.header.id.epoch);
                    }
                    if durable.is_some() {
                        owned.retry.succeeded();
                    } else if is_as_before && owned.is_active && owned.was_refused {
                        owned.retry.failed();
                        self.metrics.append_failed();
                        self.refused(shard, true);
                    } else if owned.was_refused && !owned.is_active {
                        // A replica that is late: it is not asked as fast as it replies.
                        owned.retry.failed();
                    }
                    self.answered(shard, durable);
                }
            }
            Event::Appended(shard, request, result) => {
                self.appending = self.appending.saturating_sub(1);
                if let Some(owned) = self.owned.get_mut(&shard)
                    && owned.request == request
                {
                    owned.was_refused = result == Appended::WrongSequence;
                    match result {
                        Appended::Done(_) => {
                            owned.retry.succeeded();
                            self.refusals[1].succeeded(shard);
                        }
                        Appended::WrongSequence => {}
                        Appended::Refused | Appended::Unknown => {
                            owned.retry.failed();
                            self.metrics.append_failed();
                        }
                    }
                    if result == Appended::Refused && owned.is_active && owned.retry.is_stuck(now) {
                        log::error!(
                            "NATS takes no record of shard {shard} any more: its rooms go on from \
                             what was written"
                        );
                        // As if another node had taken it: what is written of other shards waits for it.
                        self.membership.handle_fenced(shard, owned.epoch, now);
                        self.is_changed = true;
                    }
                    let durable = owned.log.handle_appended(result);
                    self.answered(shard, durable);
                }
            }
            Event::Read(shard, epoch, stored) => self.read(shard, epoch, stored, now),
            Event::QuarantineRead(shard, batch, number, reason, read) => {
                self.quarantine(shard, batch, number, reason, read);
            }
        }
    }

    /// A write of a shard was refused, though nothing else was written.
    fn refused(&mut self, shard: Shard, of_logs: bool) {
        let now = self.now();
        if self.refusals[usize::from(of_logs)].count(shard, now) {
            log::warn!("NATS refuses writes for no reason: another of its servers is to lead");
            let nats = self.nats.clone();
            tokio::spawn(async move { nats.step_down(of_logs).await });
        }
    }

    // Other nodes.

    fn hear(&mut self, ping: &Ping, now: Duration) {
        let Ok(node) = u64::from_str_radix(&ping.node, 16).map(NodeId) else {
            return;
        };
        if ping.is_leaving {
            if let Some(peer) = self.peers.remove(&node) {
                peer.watch.abort();
            }
            self.membership.handle_gone(node, now);
            return;
        }
        let phase = match ping.is_draining {
            true => Phase::Draining,
            false => Phase::Up,
        };
        self.membership.handle_ping(node, &ping.name, phase, now);
        self.membership.handle_version(node, ping.version);
        if let Some(load) = ping.load() {
            self.membership.handle_load(node, load, ping.is_full);
        }
        for (shard, epoch, revision) in &ping.owned {
            let (node, epoch) = (node, Epoch(*epoch));
            let owner = Some(Owner { node, epoch });
            self.membership
                .handle_owner(Shard(*shard), owner, *revision, now);
        }
        for shard in &ping.wanted {
            self.membership.handle_wanted(Shard(*shard), now);
        }
        if node != self.config.id && !self.peers.contains_key(&node) {
            log::info!("node {node} ({}) is at {}", ping.name, ping.address);
            let (sender, address) = (self.sender.clone(), ping.address);
            let watch = tokio::spawn(async move {
                wait_for_peer_end(address).await;
                let _ = sender.send(Event::Gone(node));
            });
            let watch = watch.abort_handle();
            self.peers.insert(node, PeerWatch { address, watch });
        }
    }

    fn update_leaves(&mut self) {
        self.table.set_leaves(self.leaves.iter());
        self.metrics.leaves(self.leaves.iter().count());
    }

    /// Tells all nodes what is known of a shard's owner.
    fn announce(&self, shard: Shard) {
        let Some((owner, revision)) = self.membership.directory_entry(shard) else {
            return;
        };
        let announcement = Announcement {
            shard: shard.0,
            node: owner.node.0,
            epoch: owner.epoch.0,
            revision,
            is_active: self.membership.state(shard) == ShardState::Active,
        };
        let text = serde_json::to_vec(&announcement).unwrap_or_default();
        let (nats, subject) = (self.nats.clone(), self.nats.owners());
        tokio::spawn(async move {
            let _ = nats.client().publish(subject, text.into()).await;
        });
    }

    fn ping(&self, is_leaving: bool) -> Bytes {
        let Some((_, address)) = &self.rooms else {
            return Bytes::new();
        };
        let ping = Ping {
            node: self.config.id.to_string(),
            name: self.config.name.clone(),
            address: *address,
            is_draining: self.membership.phase() == Phase::Draining,
            is_leaving,
            shards: self.owned.values().filter(|owned| owned.is_active).count(),
            owned: self
                .membership
                .owned()
                .map(|(shard, epoch, revision)| (shard.0, epoch.0, revision))
                .collect(),
            wanted: self.membership.wanted().map(|shard| shard.0).collect(),
            load: self
                .meter
                .load()
                .map(|it| (it.processor, it.memory, it.rooms)),
            is_full: self.is_full(),
            version: VERSION,
        };
        serde_json::to_vec(&ping).unwrap_or_default().into()
    }

    /// Does what the membership asks for.
    fn act(&mut self) {
        while let Some(action) = self.membership.poll_action() {
            self.is_changed = true;
            let (nats, sender, node) = (self.nats.clone(), self.sender.clone(), self.config.id);
            match action {
                // While NATS does not take one, there is no use for another.
                Action::Ping(_) if self.pinging.as_ref().is_none_or(JoinHandle::is_finished) => {
                    let (subject, ping) = (self.nats.pings(), self.ping(false));
                    self.pinging = Some(tokio::spawn(async move {
                        let _ = nats.client().publish(subject, ping).await;
                    }));
                }
                Action::Ping(_) => {}
                Action::Claim {
                    shard,
                    epoch,
                    revision,
                } => {
                    self.claimed_at.insert(shard, (epoch, Instant::now()));
                    tokio::spawn(async move {
                        let owner = Owner { node, epoch };
                        let (result, is_refused) = nats.set_owner(shard, owner, revision).await;
                        let _ = sender.send(Event::Claimed(shard, epoch, result));
                        if result != CasResult::Failed {
                            return;
                        }
                        // The revision may have been an old one.
                        let found = nats.owner(shard).await;
                        let current = match &found {
                            Some(DirectoryEntry::Owner(_, _, revision)) => *revision,
                            _ => 0,
                        };
                        if is_refused && current == revision {
                            let _ = sender.send(Event::ClaimRefused(shard));
                        }
                        if let Some(entry) = found {
                            let _ = sender.send(entry.into());
                        }
                    });
                }
                Action::Transfer {
                    shard,
                    to,
                    epoch,
                    revision,
                } => {
                    tokio::spawn(async move {
                        let owner = Owner { node: to, epoch };
                        let (result, _) = nats.set_owner(shard, owner, revision).await;
                        let _ = sender.send(Event::Transferred(shard, epoch, result));
                    });
                }
                Action::Acquire { shard, epoch } => match self.abandoning.get_mut(&shard) {
                    Some(next) => *next = Some(epoch),
                    None => self.acquire(shard, epoch),
                },
                Action::Release { shard, .. } => self.release(shard),
                Action::Abandon { shard } => self.abandon(shard),
                Action::Place {
                    shard,
                    node,
                    revision,
                } => {
                    log::info!("shard {shard} goes to {node:?}, which has less to do");
                    self.metrics.placed();
                    tokio::spawn(async move {
                        if let Some(revision) = nats.place(shard, &node, revision).await {
                            let is_pinned = false;
                            let placement = Some(Placement { node, is_pinned });
                            let _ = sender.send(Event::Placement(shard, placement, revision));
                        }
                    });
                }
            }
        }
    }

    fn acquire(&mut self, shard: Shard, epoch: Epoch) {
        self.remove(shard);
        let limits = self.nats.limits();
        self.owned
            .insert(shard, Owned::new(shard, self.config.id, epoch, limits));
        self.drive(shard);
    }

    fn release(&mut self, shard: Shard) {
        // The rooms must not be here any more.
        self.update();
        let Some((rooms, _)) = &self.rooms else {
            return;
        };
        let epoch = self.membership.epoch(shard);
        let (released, sender) = (rooms.release(shard), self.sender.clone());
        tokio::spawn(async move {
            let result = released.await;
            let _ = sender.send(Event::Released(shard, epoch, result));
        });
    }

    fn abandon(&mut self, shard: Shard) {
        self.update();
        let had_rooms = self.owned.get(&shard).is_some_and(|owned| owned.is_active);
        self.remove(shard);
        if let Some(next) = self.abandoning.get_mut(&shard) {
            *next = None;
        }
        let Some((rooms, _)) = self.rooms.as_ref().filter(|_| had_rooms) else {
            return;
        };
        log::debug!("shard {shard} is another node's");
        self.metrics.abandoned();
        let (abandoned, sender) = (rooms.abandon(shard), self.sender.clone());
        self.abandoning.entry(shard).or_insert(None);
        tokio::spawn(async move {
            abandoned.await;
            // Behind all that its rooms have written.
            let _ = sender.send(Event::Abandoned(shard));
        });
    }

    /// Forgets a shard, and fails what waits for it.
    fn remove(&mut self, shard: Shard) {
        let Some(owned) = self.owned.remove(&shard) else {
            return;
        };
        self.gate.remove(|room| shard_of(*room) == shard);
        let (parts, loads) = owned.end();
        for PartOf { batch, numbers } in parts {
            self.batches.part_failed(batch, numbers);
        }
        for done in loads {
            done(Err(JournalError::NotOwned { rooms: Vec::new() }));
        }
        self.batches.complete();
    }

    /// Makes the table for gateways.
    fn update(&mut self) {
        let location = |shard: Shard| {
            if self.membership.state(shard) == ShardState::Active {
                return Location::Here;
            }
            match self.membership.owner(shard) {
                Some(owner) if owner != self.config.id => self
                    .peers
                    .get(&owner)
                    .map_or(Location::Unknown, |peer| Location::Node(peer.address)),
                _ => Location::Unknown,
            }
        };
        let shards = Shard::all().map(|shard| ShardLocation {
            location: location(shard),
            is_coming: self.is_coming(shard),
        });
        self.table.set(shards.collect());
        self.metrics.update(
            self.owned.values(),
            self.membership.nodes().count(),
            self.batches.len(),
        );
        if !self.draining.is_empty() {
            let is_done = self.membership.is_empty() && self.abandoning.is_empty();
            if is_done || !self.membership.has_successor() {
                for done in self.draining.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Whether rooms of a shard may be asked for that are not here yet, but soon: nothing of an epoch before is left,
    /// and the log can be read.
    fn is_coming(&self, shard: Shard) -> bool {
        let epoch = self.membership.epoch(shard);
        let owned = self.owned.get(&shard);
        self.membership.is_coming(shard, self.now())
            && owned.is_some_and(|owned| owned.epoch == epoch && owned.may_load())
    }

    /// Refuses the loads that wait for shards which take long: clients wait at their own nodes, and not for ever.
    fn refuse_waiting(&mut self) {
        let now = self.now();
        for (shard, owned) in &mut self.owned {
            if !self.membership.is_coming(*shard, now) {
                refuse(owned.take_waiting());
            }
        }
    }

    // The log.

    /// Does what a shard's log asks for.
    fn drive(&mut self, shard: Shard) {
        let now = self.now();
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        let epoch = owned.epoch;
        if owned.log.is_fenced() {
            log::warn!("another node has begun a later epoch of shard {shard} than {epoch}");
            self.is_changed = true;
            if owned.is_active {
                self.membership.handle_fenced(shard, epoch, now);
            } else {
                self.remove(shard);
                self.membership.handle_acquired(shard, epoch, false, now);
            }
            return;
        }
        self.requests += 1;
        let number = self.requests;
        let (nats, sender) = (self.nats.clone(), self.sender.clone());
        let pause = owned.retry.pause();
        match owned.log.poll() {
            None => return,
            Some(Request::ReadLast) => {
                // It takes somebody who mends it, or goes back to the version that wrote it.
                let is_damaged = owned.damage().is_some();
                tokio::spawn(async move {
                    if is_damaged {
                        sleep(UNREADABLE_INTERVAL).await;
                    }
                    let last = nats.last(shard).await;
                    if matches!(last, Err(LastError::Unavailable)) {
                        sleep(pause).await;
                    }
                    let _ = sender.send(Event::Last(shard, number, last));
                });
            }
            Some(Request::Append {
                expected,
                id,
                payload,
            }) => {
                self.appending += 1;
                let is_told = owned.retry.is_told();
                let has_failed = owned.retry.has_failed();
                let refused_pause = match owned.is_active {
                    true => pause,
                    // What is last was read from a replica that is late.
                    false => owned.retry.pause_for_replica(),
                };
                let is_doubtful = owned.retry.is_doubtful();
                let record = payload.map(|in_flight| in_flight.record.clone());
                let needed = owned.first_needed(record.as_deref());
                tokio::spawn(async move {
                    let (header, record) = (RecordHeader { id, needed }, record.as_deref());
                    let result = nats.append(shard, expected, header, record, is_told).await;
                    let result = match result {
                        // It is for what is in it, and not for want of a leader, of time or of space.
                        Appended::Refused | Appended::Unknown
                            if is_doubtful && nats.takes_writes().await =>
                        {
                            Appended::Refused
                        }
                        Appended::Refused | Appended::Unknown => Appended::Unknown,
                        result => result,
                    };
                    match result {
                        Appended::Refused | Appended::Unknown => sleep(pause).await,
                        Appended::WrongSequence if has_failed => sleep(refused_pause).await,
                        Appended::WrongSequence | Appended::Done(_) => {}
                    }
                    let _ = sender.send(Event::Appended(shard, number, result));
                });
            }
        }
        owned.request = number;
    }

    /// A shard's log was answered; a record may be durable.
    fn answered(&mut self, shard: Shard, durable: Option<Option<crate::owned::InFlight>>) {
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        match durable {
            None => self.drive(shard),
            // The epoch has begun: what is stored up to here is read.
            Some(None) => self.to_read.push(owned.begin_reading()),
            Some(Some(in_flight)) => {
                let garbage = owned.durable(&in_flight, &self.nats);
                self.metrics.appended(&in_flight.record);
                for part in &in_flight.parts {
                    self.batches.part_done(part.batch);
                }
                self.batches.complete();
                self.delete(shard, garbage);
                self.noted(shard);
                self.load_next(shard);
                self.mark_ready(shard);
            }
        }
    }

    /// Reads shards that were taken: of several at once, which is much less work for NATS.
    fn begin_reading(&mut self) {
        /// So that not all wait for the largest ones.
        const AT_ONCE: usize = 16;
        while !self.to_read.is_empty() {
            let rest = self.to_read.split_off(self.to_read.len().min(AT_ONCE));
            let some = core::mem::replace(&mut self.to_read, rest);
            let (nats, sender) = (self.nats.clone(), self.sender.clone());
            tokio::spawn(read_shards(nats, some, move |shard, epoch, stored| {
                let _ = sender.send(Event::Read(shard, epoch, stored));
            }));
        }
    }

    fn read(&mut self, shard: Shard, epoch: Epoch, stored: Vec<StoredMessage>, now: Duration) {
        let Some(owned) = self
            .owned
            .get_mut(&shard)
            .filter(|owned| owned.epoch == epoch)
        else {
            return;
        };
        let claimed_at = self.claimed_at.remove(&shard);
        let claimed_at = claimed_at.filter(|(claimed, _)| *claimed == epoch);
        let is_alive = |node| self.membership.nodes().any(|(other, _)| other == node);
        let unfinished = owned.activate(stored, claimed_at.is_none(), is_alive);
        self.membership.handle_acquired(shard, epoch, true, now);
        if self.membership.state(shard) != ShardState::Active {
            return;
        }
        // The first epoch of all has no owner before.
        let claimed_at = claimed_at.filter(|_| epoch > Epoch(1));
        self.metrics
            .acquired(claimed_at.map(|(_, at)| at.elapsed()));
        log::debug!(
            "shard {shard} is here in epoch {epoch} with {} rooms, of which {} are unfinished",
            owned.room_count(),
            unfinished.len(),
        );
        // The directory must say that they are here.
        self.update();
        self.announce(shard);
        self.quarantine_convicted(shard);
        if let Some((rooms, _)) = &self.rooms {
            rooms.adopt(unfinished);
        }
        self.load_next(shard);
        self.mark_ready(shard);
        let left = self.owned.get_mut(&shard).map(Owned::take_left);
        self.delete(shard, left.unwrap_or_default());
    }

    fn mark_ready(&mut self, shard: Shard) {
        let has_pending = self.owned.get(&shard).is_some_and(Owned::has_pending);
        if has_pending && self.is_ready.insert(shard) {
            self.ready.push_back(shard);
        }
    }

    /// Appends what waits, as far as NATS keeps up.
    fn append(&mut self) {
        while self.appending < MAX_APPENDING
            && let Some(shard) = self.ready.pop_front()
        {
            self.is_ready.remove(&shard);
            if let Some(owned) = self.owned.get_mut(&shard)
                && owned.has_pending()
            {
                owned.append_next();
                self.drive(shard);
            }
        }
    }

    fn trim(&mut self) {
        const INTERVAL: Duration = Duration::from_secs(5);
        if self.trimmed_at.elapsed() < INTERVAL {
            return;
        }
        self.trimmed_at = Instant::now();
        let alive: HashSet<_> = self.membership.nodes().map(|(node, _)| node).collect();
        self.peers.retain(|node, peer| {
            let is_alive = alive.contains(node);
            if !is_alive {
                peer.watch.abort();
            }
            is_alive
        });
        for shard in Shard::all() {
            let garbage = self.owned.get_mut(&shard).and_then(Owned::trim_due);
            self.delete(shard, garbage.into_iter().collect());
        }
    }

    fn delete(&self, shard: Shard, garbage: Vec<Garbage>) {
        if garbage.is_empty() {
            return;
        }
        let nats = self.nats.clone();
        tokio::spawn(async move {
            for garbage in garbage {
                match garbage {
                    Garbage::Log(before) => nats.trim(shard, before).await,
                    Garbage::Room(id, before) => nats.delete_room(shard, &id, before).await,
                    Garbage::Parts(id, parts, before) => {
                        nats.delete_parts(shard, &id, parts, before).await;
                    }
                }
            }
        });
    }
}

/// Clients of these rooms look for them elsewhere, or come again.
fn refuse(loads: Vec<Done<Stored>>) {
    for done in loads {
        done(Err(JournalError::NotOwned { rooms: Vec::new() }));
    }
}

const _: () = assert!(SHARDS == 256, "a shard is a byte");
