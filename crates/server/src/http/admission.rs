//! Who may connect: how many at a time, in all and from one address, and how often.

use crate::{
    config::ServerConfig,
    rate_limit::{Rate, TokenBucket},
};
use axum::http::StatusCode;
use hashbrown::HashMap;
use std::{
    format,
    net::{IpAddr, Ipv6Addr},
    string::String,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Counts connections in and out.
#[derive(Clone)]
pub(crate) struct ConnectionLimiter {
    limits: ConnectionLimits,
    since: Instant,
    inside: Arc<Mutex<AdmissionState>>,
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
    visitors: HashMap<IpAddr, PeerState>,
    /// How many visitors there may be before those that are gone are looked for.
    sweep_at: usize,
}

/// One address: those that have a connection, or had one just now.
struct PeerState {
    connections: usize,
    connects: TokenBucket,
}

/// A connection's place; given back when this is dropped.
pub(crate) struct ConnectionPermit {
    door: ConnectionLimiter,
    visitor: IpAddr,
}

/// Why somebody may not connect.
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
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
            inside: Arc::default(),
        }
    }

    /// Lets a connection in, or says why not.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<ConnectionPermit, Rejection> {
        let ConnectionLimits {
            connections,
            per_address,
            rate,
        } = self.limits;
        let (now, visitor) = (self.now(), visitor(address));
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.connections >= connections {
            let reason = format!("the server has {connections} connections and takes no more");
            return Err(Rejection {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason,
            });
        }
        inside.sweep(now);
        let known = inside.visitors.entry(visitor);
        let known = known.or_insert_with(|| PeerState {
            connections: 0,
            connects: TokenBucket::new(rate),
        });
        if known.connections >= per_address {
            let reason = format!("your address has {per_address} connections and may have no more");
            return Err(Rejection {
                status: StatusCode::TOO_MANY_REQUESTS,
                reason,
            });
        }
        if !known.connects.try_take(now) {
            let reason = format!(
                "your address connects more than {} times a second",
                rate.per_second
            );
            return Err(Rejection {
                status: StatusCode::TOO_MANY_REQUESTS,
                reason,
            });
        }
        known.connections += 1;
        inside.connections += 1;
        Ok(ConnectionPermit {
            door: self.clone(),
            visitor,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let now = self.door.now();
        let mut inside = self
            .door
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inside.connections -= 1;
        if let Some(known) = inside.visitors.get_mut(&self.visitor) {
            known.connections -= 1;
            if known.is_gone(now) {
                inside.visitors.remove(&self.visitor);
            }
        }
    }
}

impl PeerState {
    /// Whether there is nothing to remember of it.
    const fn is_gone(&self, now: u64) -> bool {
        self.connections == 0 && self.connects.is_full(now)
    }
}

impl AdmissionState {
    /// Forgets who is gone, each time that as many as were there before have come.
    fn sweep(&mut self, now: u64) {
        const FEW: usize = 1024;
        if self.visitors.len() >= self.sweep_at.max(FEW) {
            self.visitors.retain(|_, visitor| !visitor.is_gone(now));
            self.sweep_at = self.visitors.len() * 2;
        }
    }
}

/// What counts as one address: of IPv6 the first half, since a provider gives its customers all
/// that begin with it.
fn visitor(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
