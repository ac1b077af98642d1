//! Which leaves there are, as their pings say.

use crate::shard::NodeId;
use core::time::Duration;
use std::collections::BTreeMap;

/// A node's view of the leaves. `now` is a time since any fixed moment, of a clock that is not set.
///
/// A leaf has claimed its name in the directory, by compare-and-set, and says with which revision. So of two
/// that have claimed the same name, the one with the lower revision is a former one, whether or not it knows. That
/// is for a leaf that is late, and not against one that lies: whoever may say something in a leaf's name can be that
/// leaf for as long as it says so.
#[derive(Debug)]
pub struct Leaves {
    silence: Duration,
    known: BTreeMap<String, Leaf>,
}

/// What a leaf says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafPing {
    /// Its run.
    pub leaf: NodeId,
    /// Of its claim to the name.
    pub revision: u64,
    /// The SHA-256 hash of what it shows to the nodes that it connects to.
    pub secret_hash: [u8; 32],
    /// Whether it ends.
    pub is_leaving: bool,
}

#[derive(Debug)]
struct Leaf {
    ping: LeafPing,
    heard_at: Duration,
    /// When it has said something else than before.
    changed_at: Duration,
    is_away: bool,
}

/// Leaves that are known at once, also such as are away. Whoever may use NATS can name as many as it likes.
const MAX_LEAVES: usize = 1024;

/// Time between two changes of a leaf: each concerns all clients of the node.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);

/// Time after which a leaf that is away is forgotten, and with it the revision of its claim.
const FORGET_AFTER: Duration = Duration::from_secs(60);

impl Leaves {
    /// None yet; those that are not heard for `silence` are away.
    #[must_use]
    pub const fn new(silence: Duration) -> Self {
        Self {
            silence,
            known: BTreeMap::new(),
        }
    }

    /// A leaf of this name says something; returns whether that changes where its rooms are. What changes too often
    /// is not heard, but when it is said again.
    pub fn handle_ping(&mut self, name: &str, ping: LeafPing, now: Duration) -> bool {
        let Some(known) = self.known.get_mut(name) else {
            if ping.is_leaving || !self.make_space() {
                return false;
            }
            let leaf = Leaf {
                ping,
                heard_at: now,
                changed_at: now,
                is_away: false,
            };
            self.known.insert(name.into(), leaf);
            return true;
        };
        let is_same = known.ping.leaf == ping.leaf && known.ping.revision == ping.revision;
        // A claim is of one run.
        if !is_same && ping.revision <= known.ping.revision {
            return false;
        }
        // Another secret is another change.
        let has_changed = known.ping != ping || known.is_away != ping.is_leaving;
        if has_changed && now < known.changed_at + CHANGE_INTERVAL {
            return false;
        }
        *known = Leaf {
            ping,
            heard_at: now,
            changed_at: if has_changed { now } else { known.changed_at },
            is_away: ping.is_leaving,
        };
        has_changed
    }

    /// Finds those that are away; returns whether there are new ones among them.
    pub fn handle_timeout(&mut self, now: Duration) -> bool {
        let mut has_changed = false;
        for leaf in self.known.values_mut() {
            if !leaf.is_away && now > leaf.heard_at + self.silence {
                leaf.is_away = true;
                has_changed = true;
            }
        }
        self.known
            .retain(|_, leaf| !leaf.is_away || now <= leaf.heard_at + FORGET_AFTER);
        has_changed
    }

    /// The leaves that are there, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LeafPing)> {
        let there = self.known.iter().filter(|(_, leaf)| !leaf.is_away);
        there.map(|(name, leaf)| (&**name, &leaf.ping))
    }

    /// Forgets the one that has been away for the longest time, if there are too many.
    fn make_space(&mut self) -> bool {
        if self.known.len() < MAX_LEAVES {
            return true;
        }
        let away = self.known.iter().filter(|(_, leaf)| leaf.is_away);
        let oldest = away.min_by_key(|(_, leaf)| leaf.heard_at);
        let Some(name) = oldest.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.known.remove(&name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(3);

    fn ping(leaf: u64, revision: u64) -> LeafPing {
        LeafPing {
            leaf: NodeId(leaf),
            revision,
            secret_hash: [leaf as u8; 32],
            is_leaving: false,
        }
    }

    fn there(leaves: &Leaves) -> Vec<(String, u64)> {
        let there = leaves.iter().map(|(name, ping)| (name.into(), ping.leaf.0));
        there.collect()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_leaf_is_there_while_it_is_heard() {
        let mut leaves = Leaves::new(SILENCE);
        assert!(leaves.handle_ping("den", ping(1, 7), at(0)));
        assert!(!leaves.handle_ping("den", ping(1, 7), at(1000)));
        assert!(!leaves.handle_timeout(at(4000)));
        assert_eq!(there(&leaves), [("den".into(), 1)]);
        assert!(leaves.handle_timeout(at(4001)));
        assert!(!leaves.handle_timeout(at(5000)));
        assert_eq!(there(&leaves), []);
        assert!(leaves.handle_ping("den", ping(1, 7), at(6000)));
        let leaving = LeafPing {
            is_leaving: true,
            ..ping(1, 7)
        };
        assert!(leaves.handle_ping("den", leaving, at(7000)));
        assert!(!leaves.handle_ping("den", leaving, at(9000)));
        assert!(!leaves.handle_ping("other", leaving, at(9000)));
        assert_eq!(there(&leaves), []);
    }

    #[test]
    fn a_former_leaf_of_a_name_is_not_believed() {
        let mut leaves = Leaves::new(SILENCE);
        leaves.handle_ping("den", ping(1, 7), at(0));
        assert!(leaves.handle_ping("den", ping(2, 9), at(1000)));
        assert!(!leaves.handle_ping("den", ping(1, 7), at(2000)));
        // Not even one that says that its claim is the same.
        assert!(!leaves.handle_ping("den", ping(3, 9), at(2000)));
        let leaving = LeafPing {
            is_leaving: true,
            ..ping(1, 7)
        };
        assert!(!leaves.handle_ping("den", leaving, at(3000)));
        assert_eq!(there(&leaves), [("den".into(), 2)]);
        // Also when the later one is away.
        assert!(leaves.handle_timeout(at(10_000)));
        assert!(!leaves.handle_ping("den", ping(1, 7), at(10_001)));
        assert_eq!(there(&leaves), []);
    }

    #[test]
    fn one_that_changes_all_the_time_does_not_keep_nodes_busy() {
        let mut leaves = Leaves::new(SILENCE);
        let mut changes = 0;
        for n in 0..10_000 {
            let said = LeafPing {
                is_leaving: n % 3 == 0,
                secret_hash: [n as u8; 32],
                ..ping(n, n)
            };
            changes += u32::from(leaves.handle_ping("den", said, at(n)));
            changes += u32::from(leaves.handle_timeout(at(n)));
        }
        assert!(changes <= 20, "{changes}");
    }

    #[test]
    fn a_name_is_free_again_whatever_its_leaf_has_said_of_its_claim() {
        let mut leaves = Leaves::new(SILENCE);
        leaves.handle_ping("den", ping(1, u64::MAX), at(0));
        assert!(!leaves.handle_ping("den", ping(2, 9), at(2000)));
        assert!(leaves.handle_timeout(at(4000)));
        assert!(!leaves.handle_ping("den", ping(2, 9), at(5000)));
        assert!(!leaves.handle_timeout(at(60_001)));
        assert!(leaves.handle_ping("den", ping(2, 9), at(60_002)));
        assert_eq!(there(&leaves), [("den".into(), 2)]);
    }

    #[test]
    fn there_are_not_too_many() {
        let mut leaves = Leaves::new(SILENCE);
        for n in 0..MAX_LEAVES as u64 {
            assert!(leaves.handle_ping(&format!("leaf-{n}"), ping(n, n), at(n)));
        }
        assert!(!leaves.handle_ping("one-more", ping(1, 1), at(2000)));
        assert!(leaves.handle_timeout(at(3001)));
        assert!(leaves.handle_ping("one-more", ping(1, 1), at(3001)));
        let names: Vec<_> = leaves.iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"one-more") && !names.contains(&"leaf-0"));
        assert!(names.contains(&"leaf-1"));
    }
}
