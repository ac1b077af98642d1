//! Accepts connections and serves HTTP on them.

use crate::{
    config::ServerConfig,
    http::{
        admission::{ConnectionLimiter, ConnectionPermit, Rejection},
        connection::Connection,
        listen::Listener,
        open_files::{self, OpenFilesLimit},
        routes::App,
        throttled_stream::{ThrottledStream, lingering_close},
    },
    log_limit::LogLimiter,
    rate_limit::{Rate, TokenBucket},
    rooms::worker_pool::WorkerPool,
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
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Semaphore, watch},
    time::sleep,
};

/// Accepts connections and serves HTTP on them.
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener to ask first, so that a flood on one does not keep the others from their turn.
    next_listener: usize,
    http: http1::Builder,
    app: Arc<App>,
    workers: Arc<WorkerPool>,
    limiter: ConnectionLimiter,
    byte_rate: Rate,
    request_rate: Rate,
    write_timeout: Duration,
    /// Each response to a rejected connection holds a permit.
    rejections: Arc<Semaphore>,
    log: LogLimiter,
}

impl Acceptor {
    pub(crate) fn new(
        listeners: Vec<Listener>,
        config: &ServerConfig,
        app: App,
        workers: Arc<WorkerPool>,
    ) -> Self {
        /// The request line and headers; beyond that, 431.
        const MAX_HEAD_BYTES: usize = 16 << 10;
        const MAX_CONCURRENT_REJECTIONS: usize = 64;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        Self {
            listeners,
            next_listener: 0,
            http,
            app: Arc::new(app),
            workers,
            limiter: ConnectionLimiter::new(config),
            byte_rate: config.byte_rate,
            request_rate: config.message_rate,
            write_timeout: config.heartbeat_timeout,
            rejections: Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS)),
            log: LogLimiter::new(),
        }
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
            match self.limiter.admit(address.ip()) {
                Ok(permit) => self.serve_connection(stream, address, permit, is_stopping.clone()),
                Err(rejection) => {
                    if let Some(permit) = self.log.permit() {
                        log::warn!(
                            "rejected a connection of {address}: {}{permit}",
                            rejection.reason
                        );
                    }
                    self.reject(stream, rejection);
                }
            }
        }
        drop((self.listeners, is_stopping));
        let _ = stopping.send(());
        stopping.closed().await;
    }

    /// Accepts a connection, however many attempts fail. Cancel-safe.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        /// What is missing, such as a file, is not there again at once.
        const PAUSE: Duration = Duration::from_millis(100);
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => return accepted,
                // It has ended before it was accepted.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if let Some(permit) = self.log.permit() {
                        match OpenFilesLimit::of(&error) {
                            Some(limit) => {
                                log::error!("cannot accept connections: {limit}{permit}");
                            }
                            None => log::error!("cannot accept connections: {error}{permit}"),
                        }
                    }
                    sleep(PAUSE).await;
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

    fn serve_connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
        is_stopping: watch::Receiver<()>,
    ) {
        // Small messages must leave at once.
        let _ = stream.set_nodelay(true);
        limit_unsent(&stream);
        let bytes = TokenBucket::new(self.byte_rate);
        let stream = ThrottledStream::new(stream, permit, bytes, self.write_timeout);
        let connection = Connection::new(self.app.clone(), self.request_rate);
        let (http, workers) = (self.http.clone(), self.workers.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.serve(&http, stream, is_stopping).await {
                let error = Escaped::new(error);
                log::debug!("the connection of {address} failed: {error}");
            }
            if let Some(connection) = connection.into_websocket(address).await {
                workers.connect(connection);
            }
        });
    }

    /// Sends the status of a rejection; in a flood, closes without a response.
    fn reject(&self, mut stream: TcpStream, Rejection { status, reason }: Rejection) {
        self.app.counts().count(status);
        let Ok(permit) = self.rejections.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let response = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\nretry-after: 1\r\n\
                 content-type: text/plain\r\ncontent-length: {}\r\n\r\n{reason}\n",
                reason.len() + 1,
            );
            // It fits into the send buffer of a new connection.
            if stream.write_all(response.as_bytes()).await.is_ok() {
                lingering_close(stream).await;
            }
            drop(permit);
        });
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

/// Whether an error is that of a connection which has ended before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
