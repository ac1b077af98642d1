//! Admission control: how many connections there may be, in all and from one address, and how often
//! an address may connect.

use crate::{
    config::ServerConfig,
    http::activity::ActiveConnection,
    rate_limit::{Rate, TokenBucket, nanos_since},
};
use hashbrown::HashMap;
use hyper::StatusCode;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Counts connections and rejects those over a limit.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter {
    limits: ConnectionLimits,
    since: Instant,
    state: Arc<Mutex<AdmissionState>>,
}

#[derive(Clone, Copy)]
struct ConnectionLimits {
    connections: usize,
    per_address: usize,
    rate: Rate,
}

#[derive(Default)]
struct AdmissionState {
    connections: usize,
    peers: HashMap<IpAddr, PeerState>,
    /// The number of peers at which stale ones are removed.
    sweep_at: usize,
}

/// An address that has connections, or had some recently.
struct PeerState {
    connections: usize,
    connects: TokenBucket,
}

/// Counts as one connection until it is dropped.
pub(crate) struct ConnectionPermit {
    limiter: ConnectionLimiter,
    /// None of a trusted proxy whose client is not known.
    peer: Option<PeerPermit>,
    /// Of a WebSocket.
    _active: Option<ActiveConnection>,
}

/// Counts as one connection of an address until it is dropped.
pub(crate) struct PeerPermit {
    limiter: ConnectionLimiter,
    peer: IpAddr,
}

/// Why a connection is rejected.
pub(crate) struct Rejection {
    pub(super) status: StatusCode,
    pub(crate) reason: String,
}

impl ConnectionLimiter {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let limits = ConnectionLimits {
            connections: config.max_connections,
            per_address: config.max_connections_per_address,
            rate: config.connect_rate,
        };
        Self {
            limits,
            since: Instant::now(),
            state: Arc::default(),
        }
    }

    /// Counts clients that nodes of a cluster pass on to this one, which they have admitted.
    pub(crate) fn for_peers(config: &ServerConfig) -> Self {
        let mut limiter = Self::new(config);
        limiter.limits.per_address = usize::MAX;
        limiter.limits.rate = Rate::UNLIMITED;
        limiter
    }

    /// Admits or rejects a new connection of a client.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<ConnectionPermit, Rejection> {
        let permit = self.admit_proxy()?;
        let peer = self.admit_peer(address)?;
        Ok(permit.with_peer(peer))
    }

    /// Admits or rejects a new connection of a trusted proxy.
    pub(crate) fn admit_proxy(&self) -> Result<ConnectionPermit, Rejection> {
        let connections = self.limits.connections;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.connections >= connections {
            return Err(Rejection {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason: format!("the server has its maximum of {connections} connections"),
            });
        }
        state.connections += 1;
        Ok(ConnectionPermit {
            limiter: self.clone(),
            peer: None,
            _active: None,
        })
    }

    /// Admits or rejects a new connection of an address, which is counted by itself.
    pub(crate) fn admit_peer(&self, address: IpAddr) -> Result<PeerPermit, Rejection> {
        let ConnectionLimits {
            per_address, rate, ..
        } = self.limits;
        let (now, peer) = (nanos_since(self.since), peer(address));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sweep(now);
        let known = state.peers.entry(peer).or_insert_with(|| PeerState {
            connections: 0,
            connects: TokenBucket::new(rate),
        });
        if known.connections >= per_address {
            return Err(Rejection {
                status: StatusCode::TOO_MANY_REQUESTS,
                reason: format!("your address has its maximum of {per_address} connections"),
            });
        }
        if !known.connects.try_consume(now) {
            let per_second = rate.per_second;
            return Err(Rejection {
                status: StatusCode::TOO_MANY_REQUESTS,
                reason: format!("your address exceeds {per_second} new connections a second"),
            });
        }
        known.connections += 1;
        Ok(PeerPermit {
            limiter: self.clone(),
            peer,
        })
    }
}

impl ConnectionPermit {
    /// For this address from now on.
    pub(crate) fn with_peer(mut self, peer: PeerPermit) -> Self {
        self.peer = Some(peer);
        self
    }

    /// For a WebSocket from now on.
    pub(crate) fn with_active(mut self, active: ActiveConnection) -> Self {
        self._active = Some(active);
        self
    }

    /// As [`with_peer`](Self::with_peer), unless the address has too many.
    pub(crate) fn of(self, address: IpAddr) -> Result<Self, Rejection> {
        let peer = self.limiter.admit_peer(address)?;
        Ok(self.with_peer(peer))
    }

    /// The address that it counts for, if it is known; of IPv6, the network.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer.as_ref().map(|permit| permit.peer)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let state = self.limiter.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).connections -= 1;
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let limiter = &self.limiter;
        let now = nanos_since(limiter.since);
        let mut state = limiter.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = state.peers.get_mut(&self.peer) {
            peer.connections -= 1;
            if peer.is_stale(now) {
                state.peers.remove(&self.peer);
            }
        }
    }
}

impl PeerState {
    /// Whether it equals the state of an unknown address.
    const fn is_stale(&self, now: u64) -> bool {
        self.connections == 0 && self.connects.is_full(now)
    }
}

impl AdmissionState {
    /// Removes stale peers each time their number has doubled: amortised constant time.
    fn sweep(&mut self, now: u64) {
        const MIN_SWEEP: usize = 1024;
        if self.peers.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.peers.retain(|_, peer| !peer.is_stale(now));
            self.sweep_at = self.peers.len() * 2;
        }
    }
}

/// What counts as one address: for IPv6 the /64 network, since that is what a provider assigns to
/// one customer.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
