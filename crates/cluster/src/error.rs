//! Why a node cannot join.

use core::fmt;
use std::error::Error;

/// Why a node cannot join a cluster.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClusterError {
    /// NATS cannot be reached.
    Connect(Box<dyn Error + Send + Sync>),
    /// What the cluster has in NATS cannot be opened or made.
    Setup(String),
    /// The name of the cluster or the node is not one that subjects can have.
    Name(String),
    /// The server of NATS is too old.
    Version {
        /// Its version.
        found: String,
    },
    /// Another leaf of the cluster has this name.
    LeafTaken(String),
    /// There are too few copies.
    Replicas {
        /// How many there are.
        found: usize,
        /// How many are needed.
        expected: usize,
    },
    /// What the cluster has in NATS would not be kept as it must be.
    Storage(String),
    /// Messages can be longer than NATS takes.
    MaxPayload {
        /// What NATS takes, in bytes.
        found: usize,
        /// What is needed.
        expected: usize,
    },
    /// The servers of NATS say that a write is acknowledged before it is on the disk, or do not say anything.
    SyncInterval(String),
    /// The monitoring of a server of NATS cannot be reached.
    Monitor(String),
    /// A thread or a socket could not be made.
    Io(std::io::Error),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(_) => f.write_str("NATS cannot be reached"),
            Self::Setup(reason) => write!(f, "NATS JetStream cannot be used: {reason}"),
            Self::Name(name) => write!(
                f,
                "{name:?} is no name for a cluster or a node: it must be 1 to 64 letters, digits, - and _"
            ),
            Self::Version { found } => {
                write!(f, "NATS must be 2.15 or newer, and not {found}")
            }
            Self::LeafTaken(name) => write!(f, "the cluster has another leaf of the name {name:?}"),
            Self::Replicas { found, expected } => write!(
                f,
                "NATS must keep {expected} copies, on so many servers, and not {found}"
            ),
            Self::Storage(reason) => write!(
                f,
                "what NATS has of the cluster is not kept as it must be: {reason}"
            ),
            Self::MaxPayload { found, expected } => write!(
                f,
                "messages are too long for NATS: its max_payload is {found} bytes, and must be \
                 {expected} or more"
            ),
            Self::SyncInterval(reason) => write!(
                f,
                "NATS must have sync_interval: always, or it can lose what it has acknowledged: {reason}"
            ),
            Self::Monitor(reason) => write!(
                f,
                "the monitoring of a server of NATS cannot be reached, which tells whether writes are \
                 acknowledged before they are on the disk: {reason}"
            ),
            Self::Io(_) => f.write_str("the node cannot be started"),
        }
    }
}

impl ClusterError {
    /// Whether it may be otherwise in a moment, when NATS has started.
    pub(crate) const fn is_temporary(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Setup(_) | Self::Monitor(_))
    }
}

impl Error for ClusterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(&**error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
