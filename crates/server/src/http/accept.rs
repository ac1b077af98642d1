//! Accepts connections and serves HTTP on them.

#[cfg(feature = "tls")]
use crate::tls::TlsAcceptor;
use crate::{
    config::{ServeError, ServerConfig},
    http::{
        admission::{ConnectionLimiter, ConnectionPermit, Rejection},
        connection::{Connection, ProxyConnection},
        listen::Listener,
        open_files::{self, OpenFilesLimit},
        proxies::Proxies,
        rejection,
        routes::App,
        throttled_stream::ThrottledStream,
    },
    log_limit::LogLimiter,
    rate_limit::{Rate, TokenBucket, nanos_since},
    rooms::worker_pool::WorkerPool,
    stream::Stream,
};
use core::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use stateroom_wasmi_host::Escaped;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::sleep,
};

/// Accepts connections and serves HTTP on them.
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener to ask first, so that a flood on one does not keep the others from their turn.
    next_listener: usize,
    server: Arc<HttpServer>,
}

/// What all connections share.
struct HttpServer {
    http: http1::Builder,
    app: Arc<App>,
    workers: Arc<WorkerPool>,
    limiter: ConnectionLimiter,
    proxies: Proxies,
    byte_rate: Rate,
    request_rate: Rate,
    write_timeout: Duration,
    /// Each response to a rejected connection holds a permit.
    rejections: Arc<Semaphore>,
    since: Instant,
    /// Handshakes of TLS with connections that are rejected, which cost more than a flood should.
    rejected_handshakes: Mutex<TokenBucket>,
    #[cfg(feature = "tls")]
    tls: Option<TlsAcceptor>,
    log: Arc<LogLimiter>,
}

/// A connection that was accepted.
struct Accepted {
    stream: TcpStream,
    address: SocketAddr,
    /// Whether it is a trusted proxy's.
    is_proxy: bool,
}

impl Acceptor {
    pub(crate) fn new(
        listeners: Vec<Listener>,
        config: &ServerConfig,
        app: App,
        workers: Arc<WorkerPool>,
        is_encrypted: bool,
    ) -> Result<Self, ServeError> {
        /// The request line and headers; beyond that, 431.
        const MAX_HEAD_BYTES: usize = 16 << 10;
        const MAX_CONCURRENT_REJECTIONS: usize = 64;
        /// Each takes about a millisecond.
        const REJECTED_HANDSHAKES: Rate = Rate::new(20, 20);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        #[cfg(feature = "tls")]
        let tls = match &config.tls {
            Some(files) if is_encrypted => Some(TlsAcceptor::new(files).map_err(ServeError::Tls)?),
            _ => None,
        };
        #[cfg(not(feature = "tls"))]
        let _ = is_encrypted;
        Ok(Self {
            listeners,
            next_listener: 0,
            server: Arc::new(HttpServer {
                http,
                app: Arc::new(app),
                workers,
                limiter: ConnectionLimiter::new(config),
                proxies: Proxies::new(config),
                byte_rate: config.byte_rate,
                request_rate: config.message_rate,
                write_timeout: config.heartbeat_timeout,
                rejections: Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS)),
                since: Instant::now(),
                rejected_handshakes: Mutex::new(TokenBucket::new(REJECTED_HANDSHAKES)),
                #[cfg(feature = "tls")]
                tls,
                log: Arc::new(LogLimiter::new()),
            }),
        })
    }

    /// Whether clients must use TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.server.is_encrypted()
    }

    /// Serves until `stop` resolves, and then until the requests in flight are done.
    pub(crate) async fn serve(mut self, stop: impl Future<Output = ()>) {
        // Each connection holds a receiver until it ends.
        let (stopping, is_stopping) = watch::channel(());
        let mut stop = pin!(stop);
        loop {
            let (stream, address) = tokio::select! {
                accepted = self.accept() => accepted,
                () = &mut stop => break,
            };
            let is_proxy = self.server.proxies.is_trusted(address.ip());
            let admitted = match is_proxy {
                true => self.server.limiter.admit_proxy(),
                false => self.server.limiter.admit(address.ip()),
            };
            let accepted = Accepted {
                stream,
                address,
                is_proxy,
            };
            match admitted {
                Ok(permit) => {
                    let (server, is_stopping) = (self.server.clone(), is_stopping.clone());
                    tokio::spawn(server.serve(accepted, permit, is_stopping));
                }
                Err(rejection) => self.server.reject(accepted, rejection),
            }
        }
        drop((self.listeners, is_stopping));
        let _ = stopping.send(());
        stopping.closed().await;
    }

    /// Accepts a connection, however many attempts fail. Cancel-safe.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    if let Some(pause) = accept_failed(&error, &self.server.log) {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        for index in (0..count).map(|offset| (self.next_listener + offset) % count) {
            if let Poll::Ready(accepted) = self.listeners[index].socket.poll_accept(cx) {
                self.next_listener = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl HttpServer {
    /// Serves HTTP on a connection, and hands it to a worker if it has become a WebSocket.
    async fn serve(
        self: Arc<Self>,
        mut accepted: Accepted,
        mut permit: ConnectionPermit,
        mut is_stopping: watch::Receiver<()>,
    ) {
        if accepted.is_proxy && self.proxies.speak_proxy_protocol() {
            let Accepted {
                stream, address, ..
            } = &mut accepted;
            let client = tokio::select! {
                client = self.proxies.read_header(stream, *address) => client,
                // A header that never ends must not delay the shutdown.
                _ = is_stopping.changed() => return,
            };
            match client {
                Ok(client) => accepted.address = client,
                Err(error) => {
                    if let Some(permit) = self.log.permit() {
                        log::warn!("rejected a connection of {address}: {error}{permit}");
                    }
                    return;
                }
            }
            accepted.is_proxy = false;
            match self.limiter.admit_peer(accepted.address.ip()) {
                Ok(peer) => permit = permit.with_peer(peer),
                Err(rejection) => return self.reject(accepted, rejection),
            }
        }
        let Accepted {
            stream,
            address,
            is_proxy,
        } = accepted;
        // Small messages must leave at once.
        let _ = stream.set_nodelay(true);
        limit_unsent(&stream);
        let stream = match self.encrypt(stream) {
            Ok(stream) => stream,
            Err(error) => return log::debug!("the connection of {address} failed: {error}"),
        };
        let bytes = TokenBucket::new(self.byte_rate);
        let stream = ThrottledStream::new(stream, permit, bytes, self.write_timeout);
        let proxy = is_proxy.then(|| ProxyConnection {
            proxies: self.proxies.clone(),
            limiter: self.limiter.clone(),
            log: self.log.clone(),
        });
        let connection = Connection::new(self.app.clone(), self.request_rate, address, proxy);
        let mut stopped = is_stopping.clone();
        if let Err(error) = connection.serve(&self.http, stream, is_stopping).await {
            let error = Escaped::new(error);
            log::debug!("the connection of {address} failed: {error}");
        }
        if let Some(connection) = connection.into_websocket().await {
            let stopped = async {
                let _ = stopped.changed().await;
            };
            self.workers.connect(connection, stopped).await;
        }
    }

    /// Begins TLS, if that is configured.
    fn encrypt(&self, tcp: TcpStream) -> io::Result<Stream> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(Stream::Tls(Box::new(tls.accept(tcp)?)));
        }
        Ok(Stream::Plain(tcp))
    }

    /// Whether clients must speak TLS.
    fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Sends the status of a rejection, or an alert if there are many over TLS; in a flood, closes without
    /// a response.
    fn reject(&self, accepted: Accepted, rejection: Rejection) {
        let Accepted {
            stream, address, ..
        } = accepted;
        if let Some(permit) = self.log.permit() {
            let reason = &rejection.reason;
            log::warn!("rejected a connection of {address}: {reason}{permit}");
        }
        self.app.counts().count(rejection.status);
        let Ok(permit) = self.rejections.clone().try_acquire_owned() else {
            return;
        };
        if self.is_encrypted() && !self.may_shake_hands() {
            tokio::spawn(async move {
                rejection::alert(stream).await;
                drop(permit);
            });
        } else if let Ok(stream) = self.encrypt(stream) {
            tokio::spawn(async move {
                rejection::respond(stream, rejection).await;
                drop(permit);
            });
        }
    }

    /// Whether there may be another handshake of TLS with a connection that is rejected.
    fn may_shake_hands(&self) -> bool {
        let handshakes = self.rejected_handshakes.lock();
        let mut handshakes = handshakes.unwrap_or_else(PoisonError::into_inner);
        handshakes.try_consume(nanos_since(self.since))
    }
}

/// Bounds what the system keeps of what is not sent yet. Otherwise that can be megabytes, and a client on
/// a slow line, which takes them for minutes, looks like one that takes nothing.
fn limit_unsent(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const MAX_UNSENT_BYTES: u32 = 128 << 10;
        // Fails on none of these systems.
        let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stream;
}

/// Says so if this process may have fewer files open than it may have connections.
pub(crate) fn warn_of_few_files(max_connections: usize) {
    /// Listeners, links, workers and standard streams have files, too.
    const OTHER_FILES: u64 = 32;
    if let Some(files) = open_files::of_process()
        && files < max_connections as u64 + OTHER_FILES
    {
        log::warn!(
            "there may be {max_connections} connections, but this process may have only {files} \
             open files: connections beyond that will have to wait"
        );
    }
}

/// Logs why a connection was not accepted, and returns the pause before the next attempt.
pub(crate) fn accept_failed(error: &io::Error, log: &LogLimiter) -> Option<Duration> {
    /// What is missing, such as a file, is not there again at once.
    const PAUSE: Duration = Duration::from_millis(100);
    if is_of_connection(error) {
        return None;
    }
    if let Some(permit) = log.permit() {
        match OpenFilesLimit::of(error) {
            Some(limit) => log::error!("cannot accept connections: {limit}{permit}"),
            None => log::error!("cannot accept connections: {error}{permit}"),
        }
    }
    Some(PAUSE)
}

/// Whether an error is that of a connection which has ended before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
