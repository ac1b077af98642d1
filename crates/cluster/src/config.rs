//! How a node joins.

use crate::error::ClusterError;
use async_nats::{Client, ConnectOptions};
use core::time::Duration;

/// How a node joins a cluster.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// Addresses of NATS, separated by commas. A user and a password in the first of them that has some are
    /// for all.
    pub servers: String,
    /// A file with the credentials for NATS, if it needs some. Default none.
    pub credentials: Option<std::path::PathBuf>,
    /// The name of the cluster: what tells several apart in one NATS. Default `main`.
    pub name: String,
    /// The name of this node: the same in each of its runs, and no other node's.
    pub node: String,
    /// How many copies NATS keeps. Default 3.
    pub replicas: usize,
    /// Time after which a node that is not heard is taken for dead. Default 300 ms.
    pub silence: Duration,
    /// Addresses of the HTTP monitoring of all servers of NATS, as `host:port`: the only thing that tells
    /// whether they wait for the disk. Default none.
    pub monitors: Vec<String>,
    /// Whether to go on with a NATS that can lose what it has acknowledged. Default false.
    pub is_unsafe: bool,
    /// The longest message of a client, in bytes, which NATS must be able to keep. Default 1 MiB.
    pub max_message_bytes: usize,
    /// Rooms that this node may have open: when it has about as many, it gets no more shards than it must.
    /// Default none.
    pub max_rooms: Option<u64>,
    /// Rooms that may be stored in the whole cluster: each node refuses new ones beyond the share of its shards.
    /// Default none.
    pub max_stored_rooms: Option<u64>,
}

impl ClusterConfig {
    /// The defaults, for NATS at these addresses and a node of this name.
    #[must_use]
    pub fn new(servers: &str, node: &str) -> Self {
        Self {
            servers: servers.into(),
            credentials: None,
            name: "main".into(),
            node: node.into(),
            replicas: 3,
            silence: Duration::from_millis(300),
            monitors: Vec::new(),
            is_unsafe: false,
            max_message_bytes: 1 << 20,
            max_rooms: None,
            max_stored_rooms: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        for name in [&self.name, &self.node] {
            let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.is_empty() || name.len() > 64 || !name.bytes().all(is_valid) {
                return Err(ClusterError::Name(name.clone()));
            }
        }
        Ok(())
    }

    /// Connects to NATS.
    pub(crate) async fn connect(&self) -> Result<Client, ClusterError> {
        self.connect_with(ConnectOptions::new()).await
    }

    /// The same for a leaf, which gets replies on subjects that no other client of NATS has: so it need not be
    /// allowed to hear those of others.
    pub(crate) async fn connect_leaf(&self) -> Result<Client, ClusterError> {
        let prefix = format!("_INBOX.leaf_{}", self.node);
        let options = ConnectOptions::new().custom_inbox_prefix(prefix);
        self.connect_with(options).await
    }

    async fn connect_with(&self, mut options: ConnectOptions) -> Result<Client, ClusterError> {
        /// Between attempts to connect again.
        const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);
        if let Some(file) = &self.credentials {
            let read = options.credentials_file(file).await;
            options = read.map_err(ClusterError::Io)?;
        }
        let servers: Result<Vec<async_nats::ServerAddr>, _> =
            self.servers.split(',').map(str::parse).collect();
        let servers = servers.map_err(|error| ClusterError::Connect(error.into()))?;
        // The library does not take them from there.
        let named = servers
            .iter()
            .find_map(|server| server.username().zip(server.password()));
        if let Some((user, password)) = named {
            options = options.user_and_password(user.into(), password.into());
        }
        options
            .name(format!("stateroom {} {}", self.name, self.node))
            .ping_interval(Duration::from_secs(1))
            .connection_timeout(Duration::from_secs(2))
            // What a server that has just started does not answer is asked again.
            .request_timeout(Some(Duration::from_secs(2)))
            .reconnect_delay_callback(|attempts| match attempts {
                0 | 1 => Duration::ZERO,
                _ => RECONNECT_INTERVAL,
            })
            .subscription_capacity(1 << 16)
            .event_callback(|event| async move { log::debug!("NATS: {event}") })
            .connect(servers)
            .await
            .map_err(|error| ClusterError::Connect(error.into()))
    }
}
