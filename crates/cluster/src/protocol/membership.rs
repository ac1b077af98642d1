//! Which nodes there are, and which shards this one owns.

use super::placement::{Load, relieve};
use crate::{
    format::VERSION,
    shard::{Epoch, NodeId, SHARDS, Shard, preference},
};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A node's view of the cluster, and what it does about it.
///
/// Drive it by this loop: pass what happens to the `handle_*` methods, do what
/// [`poll_action`](Self::poll_action) returns, and call [`handle_timeout`](Self::handle_timeout) at
/// [`poll_timeout`](Self::poll_timeout) at the latest. `now` is a time since any fixed moment, of a clock that
/// is not set. Spurious calls are no-ops.
///
/// Owners are in a directory, a key for each shard, which is changed by compare-and-set: whose revision is not
/// the last one is refused.
#[derive(Debug)]
pub struct Membership {
    id: NodeId,
    options: MembershipOptions,
    phase: Phase,
    peers: BTreeMap<NodeId, Peer>,
    shards: Vec<ShardEntry>,
    /// Where shards are to be, if not where they fall, with the revisions of what says so.
    placements: HashMap<Shard, (Option<Placement>, u64)>,
    actions: VecDeque<Action>,
    /// Whether all of the directory was read.
    has_directory: bool,
    /// When the node was heard by itself.
    heard_itself: Option<Duration>,
    /// When it last handled a timeout.
    awake_at: Duration,
    /// From when on it may claim: it has heard who is there.
    settled_at: Duration,
    /// Since when the same nodes have been there.
    stable_since: Duration,
    ping_at: Duration,
    /// Claims that were not answered.
    claiming: usize,
    /// Shards that somebody waits for, since nobody has them.
    wanted: BTreeSet<Shard>,
}

/// Times and bounds.
#[derive(Clone, Debug)]
pub struct MembershipOptions {
    /// This node's name: the same in each of its runs, and of no other node.
    pub name: String,
    /// The version of what it writes to the log, and the last that it can read.
    pub version: u8,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time after which a node that is not heard is taken for dead.
    pub silence: Duration,
    /// Time for which the same nodes must have been there before shards are moved to where they belong.
    pub rebalance_after: Duration,
    /// Time for which a shard stays that was placed because of its load.
    pub place_after: Duration,
    /// Shards that are given away at once, and are not at their next owners yet.
    pub max_releases: usize,
    /// How many shards there are; all but tests have [`SHARDS`].
    pub shards: usize,
}

impl MembershipOptions {
    /// The defaults, for a node of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            version: VERSION,
            ping_interval: Duration::from_millis(50),
            silence: Duration::from_millis(300),
            rebalance_after: Duration::from_secs(2),
            place_after: Duration::from_secs(60),
            max_releases: 1,
            shards: SHARDS,
        }
    }
}

/// Another node, or this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// What it does.
    pub phase: Phase,
    heard_at: Duration,
    /// When it has said that it ends, or was found to have ended.
    gone_at: Option<Duration>,
    /// Since when it is taken for dead.
    dead_since: Option<Duration>,
    /// What its rooms do and take, if it has said so.
    load: Option<Load>,
    /// Whether it has as many rooms as it may.
    is_full: bool,
    /// The last version of records that it can read.
    version: u8,
}

/// What a node does, as its pings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes shards.
    Up,
    /// It gives its shards away.
    Draining,
}

/// What the directory says of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The owner.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
}

/// Where a shard is to be, if not where it falls by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The name of the node, which has it whenever it is there.
    pub node: String,
    /// Whether an operator has said so; else its owner has, which had more to do than this node.
    pub is_pinned: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell all nodes, also this one, that this one is there.
    Ping(Phase),
    /// Set a shard's owner in the directory, if its revision is this one (0: if there is none). Then
    /// [`Membership::handle_claimed`].
    Claim {
        /// The shard.
        shard: Shard,
        /// The epoch of this node.
        epoch: Epoch,
        /// The expected revision.
        revision: u64,
    },
    /// Begin the epoch in the shard's log, and go on with its rooms. Then [`Membership::handle_acquired`].
    Acquire {
        /// The shard.
        shard: Shard,
        /// The epoch of this node.
        epoch: Epoch,
    },
    /// Save the shard's rooms and end them here, if it is active. Then [`Membership::handle_released`].
    Release {
        /// The shard.
        shard: Shard,
        /// To which node it goes.
        to: NodeId,
    },
    /// Set another node as owner in the directory, as for a claim. Then [`Membership::handle_transferred`].
    Transfer {
        /// The shard.
        shard: Shard,
        /// The next owner.
        to: NodeId,
        /// Its epoch.
        epoch: Epoch,
        /// The expected revision.
        revision: u64,
    },
    /// End the shard's rooms at once: they are another node's.
    Abandon {
        /// The shard.
        shard: Shard,
    },
    /// Say that this shard is to be at the node of this name, if the revision of what says so is this one (0: if
    /// nothing does). Then [`Membership::handle_placement`], if that was done.
    Place {
        /// The shard.
        shard: Shard,
        /// The name of a node that has less to do.
        node: String,
        /// The expected revision.
        revision: u64,
    },
}

/// What became of a compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasResult {
    /// It was done, with this revision.
    Done(u64),
    /// It was not done, or it is not known whether it was. The directory says what holds.
    Failed,
}

/// What this node is to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Nothing.
    Foreign,
    /// It wants to become the owner.
    Claiming,
    /// It is the owner by the directory, but does not run the rooms yet.
    Acquiring,
    /// It runs the rooms.
    Active,
    /// It is about to give it to another.
    Releasing,
}

#[derive(Debug)]
struct ShardEntry {
    owner: Option<Owner>,
    /// Of the directory's entry.
    revision: u64,
    state: ShardState,
    /// The epoch of this node, unless the shard is foreign.
    epoch: Epoch,
    /// This node does not come back to this epoch or an earlier one.
    left: Epoch,
    /// Where it goes.
    to: NodeId,
    /// When its next owner had it by the directory, until that runs its rooms.
    given_at: Option<Duration>,
    /// When a claim may be tried again.
    retry_at: Duration,
    /// When it began to be acquired.
    acquiring_since: Duration,
    /// When it was here.
    active_since: Duration,
    /// The version of the last record, while it is being acquired and that is too late a one.
    unreadable: Option<u8>,
}

/// Shards that are claimed or acquired at once. NATS does what comes at the same time with little more work than
/// one of them; with all at once, none is here much sooner than the last.
const MAX_CLAIMS: usize = 64;

/// Time after which one that is being acquired keeps others waiting no more.
const MAX_ACQUIRING: Duration = Duration::from_secs(1);

/// The same for one that was given away, of which the next owner says when it has it.
const MAX_GIVEN: Duration = Duration::from_millis(50);

impl Membership {
    /// A node that begins.
    #[must_use]
    pub fn new(id: NodeId, options: MembershipOptions, now: Duration) -> Self {
        let entry = || ShardEntry {
            owner: None,
            revision: 0,
            state: ShardState::Foreign,
            epoch: Epoch(0),
            left: Epoch(0),
            to: id,
            given_at: None,
            retry_at: Duration::ZERO,
            acquiring_since: Duration::ZERO,
            active_since: Duration::ZERO,
            unreadable: None,
        };
        Self {
            id,
            phase: Phase::Up,
            peers: BTreeMap::new(),
            shards: core::iter::repeat_with(entry)
                .take(options.shards)
                .collect(),
            placements: HashMap::new(),
            actions: VecDeque::new(),
            has_directory: false,
            heard_itself: None,
            awake_at: now,
            settled_at: now + options.silence + options.ping_interval,
            stable_since: now,
            ping_at: now,
            claiming: 0,
            wanted: BTreeSet::new(),
            options,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub const fn poll_timeout(&self) -> Duration {
        self.ping_at
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now < self.ping_at {
            return;
        }
        // The process was stopped, or the clock has jumped: what others have sent meanwhile may be unread.
        if now > self.awake_at + self.options.silence / 2 {
            self.forgive(now);
        }
        self.awake_at = now;
        self.ping_at = now + self.options.ping_interval;
        self.actions.push_back(Action::Ping(self.phase));
        self.decide(now);
    }

    /// A node has said that it is there.
    pub fn handle_ping(&mut self, node: NodeId, name: &str, phase: Phase, now: Duration) {
        if node == self.id {
            let was_isolated = self.is_isolated(now);
            self.heard_itself = Some(now);
            if was_isolated {
                self.forgive(now);
            }
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer {
            name: name.into(),
            phase,
            heard_at: now,
            gone_at: None,
            dead_since: Some(now),
            load: None,
            is_full: false,
            version: 0,
        });
        // It may have been on its way when the node ended; later, the node is there after all.
        if peer
            .gone_at
            .is_some_and(|at| now <= at + self.options.silence)
        {
            return;
        }
        peer.gone_at = None;
        let has_changed = peer.dead_since.take().is_some() || peer.phase != phase;
        peer.heard_at = now;
        peer.phase = phase;
        if has_changed {
            self.stable_since = now;
        }
    }

    /// A node has ended: it has said so, or its process is not there any more.
    pub fn handle_gone(&mut self, node: NodeId, now: Duration) {
        if node == self.id {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.gone_at.is_none()
        {
            peer.gone_at = Some(now);
            peer.dead_since.get_or_insert(now);
            self.stable_since = now;
            self.decide(now);
        }
    }

    /// The directory says who owns a shard; none if nobody does.
    pub fn handle_owner(
        &mut self,
        shard: Shard,
        owner: Option<Owner>,
        revision: u64,
        now: Duration,
    ) {
        let id = self.id;
        let entry = &mut self.shards[shard.index()];
        if revision <= entry.revision {
            return;
        }
        entry.revision = revision;
        let was_own = entry.owner.is_some_and(|owner| owner.node == id);
        let is_others = owner.is_some_and(|owner| owner.node != id);
        entry.given_at = (was_own && is_others).then_some(now);
        entry.owner = owner;
        self.wanted.remove(&shard);
        let mine = owner.filter(|owner| owner.node == id && owner.epoch > entry.left);
        match (mine, entry.state) {
            (Some(owner), ShardState::Foreign | ShardState::Claiming) => {
                self.acquire(shard, owner.epoch, now);
            }
            // Another claim of this node's, of which it did not hear.
            (Some(owner), _) if owner.epoch != entry.epoch => self.leave(shard, true),
            (Some(_), _) => {}
            (None, ShardState::Foreign) => {}
            (None, ShardState::Claiming) => self.leave(shard, false),
            (None, _) => self.leave(shard, true),
        }
        self.decide(now);
    }

    /// Somebody here or at another node waits for a room of this shard: it is taken before others.
    pub fn handle_wanted(&mut self, shard: Shard, now: Duration) {
        if self.owner(shard).is_none() && self.wanted.insert(shard) {
            // Who is to take it hears of that soon.
            self.ping_at = self.ping_at.min(now + self.options.ping_interval / 10);
        }
    }

    /// The shards that somebody waits for, as far as this node knows.
    pub fn wanted(&self) -> impl Iterator<Item = Shard> {
        let wanted = self.wanted.iter().copied();
        wanted.filter(|shard| self.owner(*shard).is_none())
    }

    /// All of the directory was passed to [`handle_owner`](Self::handle_owner).
    pub fn handle_directory_read(&mut self, now: Duration) {
        self.has_directory = true;
        self.decide(now);
    }

    /// Where a shard is to be, if not where it falls, and the revision of what says so.
    pub fn handle_placement(
        &mut self,
        shard: Shard,
        placement: Option<Placement>,
        revision: u64,
        now: Duration,
    ) {
        let known = self.placements.entry(shard).or_default();
        // What a replica says may be out of date.
        if revision > known.1 {
            *known = (placement, revision);
            self.decide(now);
        }
    }

    /// What a node's rooms do and take, and whether it has as many as it may.
    pub fn handle_load(&mut self, node: NodeId, load: Load, is_full: bool) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.load = Some(load);
            peer.is_full = is_full;
        }
    }

    /// Which version of records a node can read.
    pub fn handle_version(&mut self, node: NodeId, version: u8) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.version = version;
        }
    }

    /// The last record of a shard that is being acquired cannot be read: it is of this version, or damaged if that is
    /// the highest. The shard goes to a node that can read it, or to any if this one gives all away.
    pub fn handle_unreadable(&mut self, shard: Shard, epoch: Epoch, version: u8, now: Duration) {
        let entry = &mut self.shards[shard.index()];
        if entry.state == ShardState::Acquiring && entry.epoch == epoch {
            entry.unreadable = Some(version);
            self.decide(now);
        }
    }

    /// This node's rooms were measured, and those of its shards: some are placed elsewhere if it has much more to
    /// do than others.
    pub fn handle_measured(&mut self, own: Load, shards: &[(Shard, Load)], now: Duration) {
        let settled_at = self.stable_since + self.options.rebalance_after;
        let is_settled = now >= settled_at.max(self.settled_at) && !self.is_isolated(now);
        // What is on its way is not in the measurements of the others.
        if self.phase != Phase::Up || !is_settled || self.releasing(now) > 0 {
            return;
        }
        let is_movable = |(shard, _): &&(Shard, Load)| {
            let entry = &self.shards[shard.index()];
            let stays_until = match self.placement(*shard) {
                None => entry.active_since + self.options.rebalance_after,
                Some(it) if it.is_pinned => Duration::MAX,
                // It has come because of its load: that of a moment is no reason to go on.
                Some(_) => entry.active_since + self.options.place_after,
            };
            entry.state == ShardState::Active && now >= stays_until
        };
        let is_full = self.peers.get(&self.id).is_some_and(|peer| peer.is_full);
        let shards: Vec<_> = shards.iter().filter(is_movable).copied().collect();
        let others = self.peers.iter().filter_map(|(node, peer)| {
            let can_read = peer.version >= self.options.version;
            let takes_more = *node != self.id && peer.is_up() && !peer.is_full && can_read;
            Some((*node, peer.load.filter(|_| takes_more)?))
        });
        for (shard, node) in relieve(own, is_full, &shards, others) {
            let node = self.peers[&node].name.clone();
            let revision = self.placements.get(&shard).map_or(0, |known| known.1);
            self.actions.push_back(Action::Place {
                shard,
                node,
                revision,
            });
        }
    }

    fn placement(&self, shard: Shard) -> Option<&Placement> {
        self.placements.get(&shard)?.0.as_ref()
    }

    /// What became of [`Action::Claim`].
    pub fn handle_claimed(&mut self, shard: Shard, epoch: Epoch, result: CasResult, now: Duration) {
        self.claiming = self.claiming.saturating_sub(1);
        let node = self.id;
        match result {
            CasResult::Done(revision) => {
                self.handle_owner(shard, Some(Owner { node, epoch }), revision, now);
            }
            CasResult::Failed => {
                let retry_at = now + self.options.silence;
                let entry = &mut self.shards[shard.index()];
                if entry.state == ShardState::Claiming {
                    entry.state = ShardState::Foreign;
                    entry.retry_at = retry_at;
                }
            }
        }
    }

    /// What became of [`Action::Acquire`]: whether the rooms run here now. If not, there is a later epoch.
    pub fn handle_acquired(&mut self, shard: Shard, epoch: Epoch, is_active: bool, now: Duration) {
        let entry = &mut self.shards[shard.index()];
        if entry.state != ShardState::Acquiring || entry.epoch != epoch {
            return;
        }
        if is_active {
            entry.state = ShardState::Active;
            entry.active_since = now;
            entry.unreadable = None;
            self.decide(now);
        } else {
            self.leave(shard, false);
        }
    }

    /// The shard's log has a record of this epoch of another node's: no earlier one can begin any more. The directory
    /// may not know that, if it was lost.
    pub fn handle_epoch(&mut self, shard: Shard, epoch: Epoch) {
        let entry = &mut self.shards[shard.index()];
        entry.left = entry.left.max(epoch);
    }

    /// The shard's log has another owner.
    pub fn handle_fenced(&mut self, shard: Shard, epoch: Epoch, now: Duration) {
        let entry = &self.shards[shard.index()];
        let has_rooms = matches!(entry.state, ShardState::Active | ShardState::Releasing);
        if has_rooms && entry.epoch == epoch {
            self.leave(shard, true);
            self.decide(now);
        }
    }

    /// What became of [`Action::Release`]: all that the rooms did is durable, and nothing of them is left
    /// here. If it failed, [`handle_fenced`](Self::handle_fenced) is to be called instead.
    pub fn handle_released(&mut self, shard: Shard, epoch: Epoch) {
        let entry = &mut self.shards[shard.index()];
        if entry.state != ShardState::Releasing || entry.epoch != epoch {
            return;
        }
        self.actions.push_back(Action::Transfer {
            shard,
            to: entry.to,
            epoch: epoch.next(),
            revision: entry.revision,
        });
    }

    /// What became of [`Action::Transfer`].
    pub fn handle_transferred(
        &mut self,
        shard: Shard,
        epoch: Epoch,
        result: CasResult,
        now: Duration,
    ) {
        let entry = &self.shards[shard.index()];
        if entry.state != ShardState::Releasing || entry.epoch.next() != epoch {
            return;
        }
        let node = entry.to;
        // If it is not known, the directory still names this node, and it claims the shard again, to give it away
        // then.
        self.leave(shard, false);
        if let CasResult::Done(revision) = result {
            self.handle_owner(shard, Some(Owner { node, epoch }), revision, now);
        }
    }

    /// A node runs the rooms of a shard in this epoch. Who has given it the shard gives others away then.
    pub fn handle_active(&mut self, shard: Shard, owner: Owner, now: Duration) {
        let entry = &mut self.shards[shard.index()];
        if entry.owner == Some(owner) && entry.given_at.take().is_some() {
            self.decide(now);
        }
    }

    /// Gives all shards away from now on.
    pub fn drain(&mut self, now: Duration) {
        if self.phase != Phase::Draining {
            self.phase = Phase::Draining;
            if let Some(peer) = self.peers.get_mut(&self.id) {
                peer.phase = Phase::Draining;
            }
            self.actions.push_back(Action::Ping(self.phase));
            self.decide(now);
        }
    }

    /// What this node does.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether this node has, and awaits, no shard, and the directory does not say that it has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_own = |owner: &Owner| owner.node == self.id;
        let mut shards = self.shards.iter();
        shards.all(|entry| {
            entry.state == ShardState::Foreign && !entry.owner.as_ref().is_some_and(is_own)
        })
    }

    /// Whether another node could take shards.
    #[must_use]
    pub fn has_successor(&self) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|(node, peer)| *node != self.id && peer.is_up())
    }

    /// The owner of a shard, if that is alive; whether a room of it is here is for
    /// [`state`](Self::state).
    #[must_use]
    pub fn owner(&self, shard: Shard) -> Option<NodeId> {
        let node = self.shards[shard.index()].owner?.node;
        let is_alive = |peer: &Peer| peer.dead_since.is_none();
        self.peers.get(&node).is_some_and(is_alive).then_some(node)
    }

    /// What the directory says of a shard.
    #[must_use]
    pub fn directory(&self, shard: Shard) -> Option<Owner> {
        self.shards[shard.index()].owner
    }

    /// The same, with its revision.
    #[must_use]
    pub fn directory_entry(&self, shard: Shard) -> Option<(Owner, u64)> {
        let entry = &self.shards[shard.index()];
        Some((entry.owner?, entry.revision))
    }

    /// The shards that are this node's by the directory, with its epoch and the revision: for its pings, so
    /// that the others know them however late the directory reaches them.
    pub fn owned(&self) -> impl Iterator<Item = (Shard, Epoch, u64)> {
        let shards = Shard::all().zip(&self.shards);
        shards.filter_map(|(shard, entry)| {
            let owner = entry.owner.filter(|owner| owner.node == self.id)?;
            Some((shard, owner.epoch, entry.revision))
        })
    }

    /// What this node is to a shard.
    #[must_use]
    pub fn state(&self, shard: Shard) -> ShardState {
        self.shards[shard.index()].state
    }

    /// Whether this node is about to have a shard, and that does not take long.
    #[must_use]
    pub fn is_coming(&self, shard: Shard, now: Duration) -> bool {
        let entry = &self.shards[shard.index()];
        entry.state == ShardState::Acquiring && now < entry.acquiring_since + MAX_ACQUIRING
    }

    /// The epoch of this node in a shard.
    #[must_use]
    pub fn epoch(&self, shard: Shard) -> Epoch {
        self.shards[shard.index()].epoch
    }

    /// The nodes that are alive.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        let alive = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dead_since.is_none());
        alive.map(|(node, peer)| (*node, peer))
    }

    /// Whether this node does not hear itself, and so knows nothing of the others.
    #[must_use]
    pub fn is_isolated(&self, now: Duration) -> bool {
        let limit = self.options.silence / 2 + self.options.ping_interval;
        self.heard_itself.is_none_or(|at| now > at + limit)
    }

    /// Gives the others time to be heard.
    fn forgive(&mut self, now: Duration) {
        for peer in self.peers.values_mut() {
            peer.heard_at = now;
        }
        self.settled_at = self.settled_at.max(now + 2 * self.options.ping_interval);
    }

    fn acquire(&mut self, shard: Shard, epoch: Epoch, now: Duration) {
        let entry = &mut self.shards[shard.index()];
        entry.state = ShardState::Acquiring;
        entry.acquiring_since = now;
        entry.unreadable = None;
        entry.epoch = epoch;
        self.actions.push_back(Action::Acquire { shard, epoch });
    }

    /// Is nothing to a shard any more.
    fn leave(&mut self, shard: Shard, has_rooms: bool) {
        let entry = &mut self.shards[shard.index()];
        if entry.state != ShardState::Claiming {
            entry.left = entry.left.max(entry.epoch);
        }
        entry.state = ShardState::Foreign;
        if has_rooms {
            self.actions.push_back(Action::Abandon { shard });
        }
    }

    /// Does what follows from what is known.
    fn decide(&mut self, now: Duration) {
        if !self.is_isolated(now) {
            self.find_dead(now);
        }
        let may_claim = self.has_directory && now >= self.settled_at && !self.is_isolated(now);
        if may_claim {
            self.claim(now);
        }
        let is_stable = now >= self.stable_since + self.options.rebalance_after;
        if now >= self.settled_at {
            self.rebalance(is_stable, now);
        }
    }

    fn find_dead(&mut self, now: Duration) {
        let silence = self.options.silence;
        let mut has_changed = false;
        for (node, peer) in &mut self.peers {
            let is_silent = now > peer.heard_at + silence && *node != self.id;
            if is_silent && peer.dead_since.is_none() {
                peer.dead_since = Some(now);
                has_changed = true;
            }
        }
        if has_changed {
            self.stable_since = now;
        }
        // Those of whom there will be no more.
        let forgotten = 100 * silence;
        let shards = &self.shards;
        self.peers.retain(|node, peer| {
            peer.dead_since.is_none_or(|since| now < since + forgotten)
                || shards
                    .iter()
                    .any(|entry| entry.owner.is_some_and(|owner| owner.node == *node))
        });
    }

    /// Claims the shards whose owners are dead, and that are this node's to claim.
    fn claim(&mut self, now: Duration) {
        let shards = Shard::all().take(self.shards.len());
        let acquiring = shards.filter(|shard| self.is_coming(*shard, now)).count();
        let wanted: Vec<_> = self.wanted().collect();
        for shard in wanted
            .into_iter()
            .chain(Shard::all().take(self.shards.len()))
        {
            if self.claiming + acquiring >= MAX_CLAIMS {
                return;
            }
            let entry = &self.shards[shard.index()];
            if entry.state != ShardState::Foreign || now < entry.retry_at {
                continue;
            }
            // One that gives its shards away takes none but those of which nobody knows that it has left them.
            if self.phase == Phase::Draining
                && entry.owner.is_none_or(|owner| owner.node != self.id)
            {
                continue;
            }
            let orphaned_since = match entry.owner {
                None => self.settled_at,
                // It has left the shard, and the directory does not know it.
                Some(owner) if owner.node == self.id => now,
                Some(owner) => match self.peers.get(&owner.node) {
                    // It was not heard since this node began.
                    None => self.settled_at,
                    Some(Peer {
                        dead_since: Some(since),
                        ..
                    }) => *since,
                    Some(_) => continue,
                },
            };
            // The next in line steps in if those before it do not.
            let rank = u32::try_from(self.rank(shard)).unwrap_or(u32::MAX);
            let wait = self.options.silence.saturating_mul(2).saturating_mul(rank);
            if entry.owner.is_none_or(|owner| owner.node != self.id)
                && now < orphaned_since.saturating_add(wait)
            {
                continue;
            }
            let entry = &mut self.shards[shard.index()];
            let last = entry.owner.map_or(Epoch(0), |owner| owner.epoch);
            entry.state = ShardState::Claiming;
            self.claiming += 1;
            self.actions.push_back(Action::Claim {
                shard,
                epoch: last.max(entry.left).next(),
                revision: entry.revision,
            });
        }
    }

    /// How many nodes come before this one for a shard that nobody has. Those that are full come last.
    fn rank(&self, shard: Shard) -> usize {
        let order = |node: NodeId, name: &str| {
            let is_full = self.peers.get(&node).is_some_and(|peer| peer.is_full);
            (!is_full, self.preference(node, name, shard))
        };
        let own = order(self.id, &self.options.name);
        let others = self.peers.iter().filter(|(node, peer)| {
            **node != self.id && peer.is_up() && order(**node, &peer.name) > own
        });
        others.count()
    }

    fn preference(&self, node: NodeId, name: &str, shard: Shard) -> (bool, u64, NodeId) {
        let is_placed = self.placement(shard).is_some_and(|it| it.node == name);
        (is_placed, preference(name, shard), node)
    }

    /// How many shards are being given away.
    fn releasing(&self, now: Duration) -> usize {
        let is_releasing = |entry: &&ShardEntry| {
            let is_given = entry.given_at.is_some_and(|at| now < at + MAX_GIVEN);
            entry.state == ShardState::Releasing || is_given
        };
        self.shards.iter().filter(is_releasing).count()
    }

    /// Whether a shard has come just now: others may not know yet why.
    fn is_new(&self, entry: &ShardEntry, now: Duration) -> bool {
        now < entry.active_since + self.options.rebalance_after
    }

    /// Gives shards to where they belong, those that are here if the same nodes have been there for a while.
    fn rebalance(&mut self, is_stable: bool, now: Duration) {
        let mut releasing = self.releasing(now);
        let is_draining = self.phase == Phase::Draining;
        for shard in Shard::all().take(self.shards.len()) {
            if releasing >= self.options.max_releases {
                return;
            }
            let entry = &self.shards[shard.index()];
            let may_go = match entry.state {
                ShardState::Active => is_draining || is_stable && !self.is_new(entry, now),
                // Nobody has it meanwhile.
                ShardState::Acquiring => entry.unreadable.is_some(),
                _ => false,
            };
            if !may_go {
                continue;
            }
            let needed = entry.unreadable.unwrap_or(self.options.version);
            let can_read = |peer: &Peer| peer.version >= needed;
            let up = self.peers.iter().filter(|(_, peer)| peer.is_up());
            let up = up.filter(|(_, peer)| is_draining || can_read(peer));
            // Whoever gives all away gives it to those who can read it and have space, if some do.
            let best = up.max_by_key(|(node, peer)| {
                let has_space = !is_draining || !peer.is_full;
                let preference = self.preference(**node, &peer.name, shard);
                (can_read(peer), has_space, preference)
            });
            let Some((to, peer)) = best.filter(|(node, _)| **node != self.id) else {
                continue;
            };
            if peer.is_full && !is_draining && entry.unreadable.is_none() {
                continue;
            }
            let to = *to;
            let entry = &mut self.shards[shard.index()];
            entry.state = ShardState::Releasing;
            entry.to = to;
            releasing += 1;
            self.actions.push_back(Action::Release { shard, to });
        }
    }
}

impl Peer {
    fn is_up(&self) -> bool {
        self.dead_since.is_none() && self.phase == Phase::Up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: NodeId = NodeId(2);

    /// A node that has the only shard, beside another one.
    struct Drained {
        node: Membership,
        now: Duration,
    }

    impl Drained {
        fn new() -> Self {
            let options = MembershipOptions {
                shards: 1,
                ..MembershipOptions::new("a")
            };
            let mut drained = Self {
                node: Membership::new(NodeId(1), options, Duration::ZERO),
                now: Duration::ZERO,
            };
            let owner = Owner {
                node: NodeId(1),
                epoch: Epoch(1),
            };
            let now = drained.now;
            drained.node.handle_owner(Shard(0), Some(owner), 1, now);
            drained
                .node
                .handle_acquired(Shard(0), Epoch(1), true, drained.now);
            drained.node.handle_directory_read(drained.now);
            drained.node.drain(drained.now);
            drained
        }

        /// The next thing to do that is no ping.
        fn next(&mut self) -> Action {
            loop {
                match self.node.poll_action() {
                    Some(Action::Ping(phase)) => {
                        assert_eq!(phase, Phase::Draining);
                    }
                    Some(Action::Acquire {
                        epoch: Epoch(1), ..
                    }) => {}
                    Some(action) => return action,
                    None => {
                        self.now += Duration::from_millis(50);
                        let now = self.now;
                        for (node, name, phase) in
                            [(NodeId(1), "a", Phase::Draining), (OTHER, "b", Phase::Up)]
                        {
                            self.node.handle_ping(node, name, phase, now);
                        }
                        self.node.handle_timeout(now);
                        assert!(now < Duration::from_secs(10), "it does nothing");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_replica_says_of_placements_may_be_out_of_date() {
        let (shard, now) = (Shard(7), Duration::ZERO);
        let mut node = Membership::new(NodeId(1), MembershipOptions::new("a"), now);
        let is_placed = |node: &Membership, name: &str| node.preference(OTHER, name, shard).0;
        let at = |node: &str| {
            let (node, is_pinned) = (node.into(), true);
            Some(Placement { node, is_pinned })
        };
        node.handle_placement(shard, at("b"), 5, now);
        assert!(is_placed(&node, "b") && !is_placed(&node, "c"));
        node.handle_placement(shard, at("c"), 3, now);
        node.handle_placement(shard, None, 4, now);
        assert!(is_placed(&node, "b") && !is_placed(&node, "c"));
        node.handle_placement(shard, None, 6, now);
        node.handle_placement(shard, at("b"), 5, now);
        assert!(!is_placed(&node, "b"));
    }

    #[test]
    fn a_node_gives_a_shard_away_of_which_the_directory_did_not_hear() {
        let mut drained = Drained::new();
        let shard = Shard(0);
        assert_eq!(drained.next(), Action::Release { shard, to: OTHER });
        drained.node.handle_released(shard, Epoch(1));
        let transfer = drained.next();
        assert!(matches!(transfer, Action::Transfer { to: OTHER, .. }));
        // NATS does not answer.
        let now = drained.now;
        drained
            .node
            .handle_transferred(shard, Epoch(2), CasResult::Failed, now);
        assert!(!drained.node.is_empty(), "the directory names it");
        let Action::Claim {
            epoch, revision, ..
        } = drained.next()
        else {
            panic!("it must have the shard to give it away");
        };
        assert_eq!(revision, 1);
        let now = drained.now;
        drained
            .node
            .handle_claimed(shard, epoch, CasResult::Done(2), now);
        assert_eq!(drained.next(), Action::Acquire { shard, epoch });
        drained.node.handle_acquired(shard, epoch, true, now);
        assert_eq!(drained.next(), Action::Release { shard, to: OTHER });
        drained.node.handle_released(shard, epoch);
        assert!(matches!(drained.next(), Action::Transfer { to: OTHER, .. }));
        let now = drained.now;
        drained
            .node
            .handle_transferred(shard, epoch.next(), CasResult::Done(3), now);
        assert!(drained.node.is_empty());
    }

    #[test]
    fn a_node_that_gives_its_shards_away_claims_no_other() {
        let mut drained = Drained::new();
        let shard = Shard(0);
        drained.next();
        drained.node.handle_released(shard, Epoch(1));
        drained.next();
        let now = drained.now;
        drained
            .node
            .handle_transferred(shard, Epoch(2), CasResult::Done(2), now);
        drained.node.handle_gone(OTHER, now);
        for _ in 0..100 {
            drained.now += Duration::from_millis(50);
            let now = drained.now;
            drained
                .node
                .handle_ping(NodeId(1), "a", Phase::Draining, now);
            drained.node.handle_timeout(now);
            while let Some(action) = drained.node.poll_action() {
                assert_eq!(action, Action::Ping(Phase::Draining));
            }
        }
    }

    #[test]
    fn few_shards_are_taken_at_once_and_those_first_that_somebody_waits_for() {
        let shards = 2 * MAX_CLAIMS;
        let options = MembershipOptions {
            shards,
            ..MembershipOptions::new("a")
        };
        let (own, mut now) = (NodeId(1), Duration::ZERO);
        let mut node = Membership::new(own, options, now);
        for shard in Shard::all().take(shards) {
            let (node_id, epoch) = (OTHER, Epoch(1));
            let owner = Owner {
                node: node_id,
                epoch,
            };
            node.handle_owner(shard, Some(owner), 1, now);
        }
        node.handle_directory_read(now);
        for _ in 0..20 {
            now += Duration::from_millis(50);
            node.handle_ping(own, "a", Phase::Up, now);
            node.handle_ping(OTHER, "b", Phase::Up, now);
            node.handle_timeout(now);
        }
        // Nobody waits for what somebody has.
        node.handle_wanted(Shard(40), now);
        assert_eq!(node.wanted().count(), 0);
        while node.poll_action().is_some() {}
        node.handle_gone(OTHER, now);
        let claims = |node: &mut Membership| {
            let mut claimed = Vec::new();
            while let Some(action) = node.poll_action() {
                match action {
                    Action::Claim { shard, epoch, .. } => claimed.push((shard, epoch)),
                    Action::Acquire { .. } => {}
                    action => panic!("{action:?}"),
                }
            }
            claimed
        };
        let first = claims(&mut node);
        assert_eq!(first.len(), MAX_CLAIMS);
        node.handle_wanted(Shard(110), now);
        node.handle_wanted(Shard(100), now);
        let (shard, epoch) = first[0];
        node.handle_claimed(shard, epoch, CasResult::Done(2), now);
        assert_eq!(claims(&mut node), [], "it is being acquired");
        node.handle_acquired(shard, epoch, true, now);
        assert_eq!(claims(&mut node), [(Shard(100), Epoch(2))]);
        let (shard, epoch) = first[1];
        node.handle_claimed(shard, epoch, CasResult::Done(2), now);
        node.handle_acquired(shard, epoch, true, now);
        assert_eq!(claims(&mut node), [(Shard(110), Epoch(2))]);
        // One that cannot be acquired does not keep others waiting for long.
        let (shard, epoch) = first[2];
        node.handle_claimed(shard, epoch, CasResult::Done(2), now);
        assert_eq!(claims(&mut node), []);
        assert!(node.is_coming(shard, now));
        let until = now + MAX_ACQUIRING;
        while now < until {
            now += Duration::from_millis(50);
            node.handle_ping(own, "a", Phase::Up, now);
            node.handle_directory_read(now);
        }
        assert!(!node.is_coming(shard, now));
        assert_eq!(claims(&mut node).len(), 1);
    }

    #[test]
    fn a_shard_is_given_away_when_the_one_before_has_arrived_or_takes_long() {
        let options = MembershipOptions {
            shards: 3,
            ..MembershipOptions::new("a")
        };
        let (own, mut now) = (NodeId(1), Duration::ZERO);
        let mut node = Membership::new(own, options, now);
        for shard in Shard::all().take(3) {
            let epoch = Epoch(1);
            node.handle_owner(shard, Some(Owner { node: own, epoch }), 1, now);
            node.handle_acquired(shard, epoch, true, now);
        }
        node.handle_directory_read(now);
        let pass = |node: &mut Membership, now: &mut Duration| {
            *now += Duration::from_millis(50);
            node.handle_ping(own, "a", Phase::Draining, *now);
            node.handle_ping(OTHER, "b", Phase::Up, *now);
            node.handle_timeout(*now);
        };
        let given_away = |node: &mut Membership| {
            let actions = core::iter::from_fn(|| node.poll_action());
            let released = actions.filter_map(|action| match action {
                Action::Release { shard, .. } => Some(shard),
                _ => None,
            });
            released.collect::<Vec<_>>()
        };
        for _ in 0..20 {
            pass(&mut node, &mut now);
        }
        given_away(&mut node);
        node.drain(now);
        assert_eq!(given_away(&mut node), [Shard(0)]);
        let (next, epoch) = (Epoch(2), Epoch(1));
        let owner = Owner {
            node: OTHER,
            epoch: next,
        };
        node.handle_released(Shard(0), epoch);
        node.handle_transferred(Shard(0), next, CasResult::Done(2), now);
        assert_eq!(given_away(&mut node), [], "it is not there yet");
        // Not those of another epoch.
        node.handle_active(Shard(0), Owner { epoch, ..owner }, now);
        assert_eq!(given_away(&mut node), []);
        node.handle_active(Shard(0), owner, now);
        assert_eq!(given_away(&mut node), [Shard(1)]);
        node.handle_released(Shard(1), epoch);
        node.handle_transferred(Shard(1), next, CasResult::Done(3), now);
        node.handle_timeout(now + MAX_GIVEN - Duration::from_millis(1));
        assert_eq!(given_away(&mut node), []);
        now += MAX_GIVEN;
        pass(&mut node, &mut now);
        assert_eq!(given_away(&mut node), [Shard(2)]);
    }

    /// What could not be read is forgotten when the shard has been read after all.
    #[test]
    fn a_shard_that_was_unreadable_can_be_moved_when_it_is_not_any_more() {
        let options = MembershipOptions {
            shards: 1,
            ..MembershipOptions::new("a")
        };
        let (own, shard, epoch, mut now) = (NodeId(1), Shard(0), Epoch(1), Duration::ZERO);
        let mut node = Membership::new(own, options, now);
        let owner = Some(Owner { node: own, epoch });
        node.handle_owner(shard, owner, 1, now);
        node.handle_directory_read(now);
        node.handle_unreadable(shard, epoch, u8::MAX, now);
        node.handle_acquired(shard, epoch, true, now);
        let to_other = Placement {
            node: "b".into(),
            is_pinned: true,
        };
        node.handle_placement(shard, Some(to_other), 2, now);
        let mut actions = Vec::new();
        while now < Duration::from_secs(10) {
            now += Duration::from_millis(50);
            node.handle_ping(own, "a", Phase::Up, now);
            node.handle_ping(OTHER, "b", Phase::Up, now);
            node.handle_version(OTHER, VERSION);
            node.handle_timeout(now);
            while let Some(action) = node.poll_action() {
                actions.push(action);
            }
        }
        assert!(actions.contains(&Action::Release { shard, to: OTHER }));
    }
}
