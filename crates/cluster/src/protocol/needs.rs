//! From where on a shard's log is needed.

use super::{appender::Appender, suspects::Suspects, tails::Tails};
use core::hash::Hash;

/// What its owner needs of a shard's log. Each record says from where on that is, so that the next owner reads no
/// more, and what is before may be deleted.
#[derive(Debug)]
pub struct Needs<R> {
    /// Rooms with events since their snapshots.
    pub tails: Tails<R>,
    /// Rooms that may be why owners have ended.
    pub suspects: Suspects<R>,
    /// Whether what the owner before has left is in these. It is not before it was read, nor if it is damaged: then
    /// the next owner must find it as it is.
    pub is_read: bool,
}

impl<R> Default for Needs<R> {
    fn default() -> Self {
        Self {
            tails: Tails::default(),
            suspects: Suspects::default(),
            is_read: false,
        }
    }
}

impl<R: Copy + Eq + Hash + Ord> Needs<R> {
    /// The first record that is needed once these snapshots are stored, of a room each, which contain so many
    /// events.
    pub fn first_after<P>(
        &self,
        log: &Appender<P>,
        snapshots: impl IntoIterator<Item = (R, u64)>,
    ) -> Option<u64> {
        let left = log.left().filter(|_| !self.is_read);
        let tails = self.tails.first_after(snapshots);
        let own = tails.into_iter().chain(self.suspects.first());
        own.chain(left).min()
    }

    /// The records before this one may be deleted. The last one must stay: it tells who owns the shard.
    #[must_use]
    pub fn deletable<P>(&self, log: &Appender<P>) -> Option<u64> {
        self.is_read
            .then(|| self.first_after(log, []).unwrap_or_else(|| log.last()))
    }
}
