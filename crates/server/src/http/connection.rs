//! One connection, until it is closed or a WebSocket.

use crate::{
    http::{
        response::Response,
        routes::{App, Destination},
        throttled_stream::ThrottledStream,
    },
    rate_limit::{Rate, TokenBucket, nanos_since},
    rooms::handover::NewConnection,
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
    since: Instant,
    /// Counts requests, which a client can send without waiting for the responses.
    requests: Mutex<TokenBucket>,
    /// The handshake that has ended HTTP.
    handshake: Mutex<Option<(OnUpgrade, Destination)>>,
}

impl Connection {
    pub(super) fn new(app: Arc<App>, request_rate: Rate) -> Self {
        Self {
            app,
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
        let (response, destination) = self.app.respond(&request).await;
        if let Some(destination) = destination {
            *lock(&self.handshake) = Some((hyper::upgrade::on(request), destination));
        }
        Ok(response)
    }

    /// The WebSocket that the connection has become, if it has.
    pub(super) async fn into_websocket(self, address: SocketAddr) -> Option<NewConnection> {
        let handshake = self.handshake.into_inner();
        let (upgrade, destination) = handshake.unwrap_or_else(PoisonError::into_inner)?;
        // Fails if the response could not be sent.
        let upgraded = upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<ThrottledStream>>().ok()?;
        let (stream, permit) = parts.io.into_inner().into_parts()?;
        Some(NewConnection {
            stream: stream.into_std().ok()?,
            unread: parts.read_buf,
            permit,
            address,
            room: destination.room,
            token: destination.token,
            resumes: destination.resumes,
            sequence: destination.sequence,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
