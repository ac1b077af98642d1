//! One connection, until it is closed or a WebSocket.

use crate::{
    http::{
        activity::ActiveConnection,
        admission::{ConnectionLimiter, PeerPermit, Rejection},
        proxies::Proxies,
        response::{self, Response},
        routes::{App, Destination},
        throttled_stream::ThrottledStream,
    },
    log_limit::LogLimiter,
    rate_limit::{Rate, TokenBucket, nanos_since},
    rooms::{Order, handover::NewConnection, trials::Suspicion},
};
use core::{convert::Infallible, pin::pin, time::Duration};
use hyper::{
    Request, body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Time for requests in progress at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A connection on which HTTP is spoken.
pub(super) struct Connection {
    app: Arc<App>,
    address: SocketAddr,
    /// Of a trusted proxy's connection, which requests of several clients may use.
    proxy: Option<ProxyConnection>,
    since: Instant,
    /// Counts requests, which a client can send without waiting for the responses.
    requests: Mutex<TokenBucket>,
    /// The handshake that has ended HTTP.
    handshake: Mutex<Option<Handshake>>,
}

/// What tells the clients of a proxy apart.
pub(super) struct ProxyConnection {
    pub(super) proxies: Proxies,
    pub(super) limiter: ConnectionLimiter,
    pub(super) log: Arc<LogLimiter>,
}

struct Handshake {
    upgrade: OnUpgrade,
    destination: Destination,
    address: SocketAddr,
    /// Of a proxy's client.
    peer: Option<PeerPermit>,
    active: ActiveConnection,
}

impl Connection {
    pub(super) fn new(
        app: Arc<App>,
        request_rate: Rate,
        address: SocketAddr,
        proxy: Option<ProxyConnection>,
    ) -> Self {
        Self {
            app,
            address,
            proxy,
            since: Instant::now(),
            requests: Mutex::new(TokenBucket::new(request_rate)),
            handshake: Mutex::new(None),
        }
    }

    /// Responds to requests until the client closes the connection or begins a WebSocket, or until
    /// the server stops and a request in progress is over.
    pub(super) async fn serve(
        &self,
        http: &http1::Builder,
        stream: ThrottledStream,
        mut is_stopping: watch::Receiver<()>,
    ) -> hyper::Result<()> {
        let service = service_fn(|request| self.respond(request));
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection.with_upgrades());
        tokio::select! {
            served = &mut connection => served,
            _ = is_stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                // A request that never ends must not delay the shutdown.
                timeout(SHUTDOWN_GRACE, connection).await.unwrap_or(Ok(()))
            }
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let pause = lock(&self.requests).consume(nanos_since(self.since), 1);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let response = self.respond_to(request).await;
        self.app.counts().count(response.status());
        Ok(response)
    }

    async fn respond_to(&self, mut request: Request<Incoming>) -> Response {
        let mut address = self.address;
        if let Some(proxy) = &self.proxy {
            let client = proxy.proxies.client_of(address.ip(), request.headers());
            address = SocketAddr::new(client, 0);
        }
        let (response, destination) = self.app.respond(&mut request, address.ip()).await;
        let Some(destination) = destination else {
            return response;
        };
        let admit = |proxy: &ProxyConnection| proxy.limiter.admit_peer(address.ip());
        let peer = match self.proxy.as_ref().map(admit).transpose() {
            Ok(peer) => peer,
            Err(Rejection { status, reason }) => {
                if let Some(permit) = self.proxy.as_ref().and_then(|proxy| proxy.log.permit()) {
                    let (client, proxy) = (address.ip(), self.address);
                    log::warn!(
                        "rejected a client, {client}, of the proxy {proxy}: {reason}{permit}"
                    );
                }
                return response::text(status, format!("{reason}\n"));
            }
        };
        *lock(&self.handshake) = Some(Handshake {
            upgrade: hyper::upgrade::on(request),
            destination,
            address,
            peer,
            active: self.app.activity().begin(),
        });
        response
    }

    /// The WebSocket that the connection has become, if it has.
    pub(super) async fn into_websocket(self) -> Option<NewConnection> {
        let handshake = self.handshake.into_inner();
        let Handshake {
            upgrade,
            destination,
            address,
            peer,
            active,
        } = handshake.unwrap_or_else(PoisonError::into_inner)?;
        // Fails if the response could not be sent.
        let upgraded = upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<ThrottledStream>>().ok()?;
        let (stream, permit) = parts.io.into_inner().into_parts()?;
        let permit = match peer {
            Some(peer) => permit.with_peer(peer),
            None => permit,
        };
        let permit = permit.with_active(active);
        Some(NewConnection {
            stream: stream.detach().ok()?,
            unread: parts.read_buf,
            permit,
            address,
            room: destination.room,
            token: destination.token,
            resumes: destination.resumes,
            session: None,
            suspicion: Suspicion::default(),
            order: Order {
                sequence: destination.sequence,
                attempt: 0,
            },
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
