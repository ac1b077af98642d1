//! Stateroom rooms on many machines.

#![forbid(unsafe_code)]

pub mod protocol;
mod shard;

pub use self::shard::{Epoch, NodeId, SHARDS, Shard};
