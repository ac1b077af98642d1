//! Accepts connections and serves HTTP on them.

use crate::{
    config::ServerConfig,
    http::{
        admission::{ConnectionLimiter, ConnectionPermit, Rejection},
        throttled_stream::{ThrottledStream, lingering_close},
    },
    rate_limit::{LogLimiter, Rate, TokenBucket},
};
use axum::{Router, serve::Listener};
use core::{future::Future, pin::pin, time::Duration};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use stateroom_wasmi_host::Escaped;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_io_timeout::TimeoutStream;

/// Accepts connections and serves HTTP on them.
pub(crate) struct Acceptor {
    listener: TcpListener,
    http: http1::Builder,
    limiter: ConnectionLimiter,
    byte_rate: Rate,
    write_timeout: Duration,
    /// Each response to a rejected connection holds a permit.
    rejections: Arc<Semaphore>,
    log: LogLimiter,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, config: &ServerConfig) -> Self {
        /// The request line and headers; beyond that, 431.
        const MAX_HEAD_BYTES: usize = 16 << 10;
        const MAX_CONCURRENT_REJECTIONS: usize = 64;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(MAX_HEAD_BYTES);
        Self {
            listener,
            http,
            limiter: ConnectionLimiter::new(config),
            byte_rate: config.byte_rate,
            write_timeout: config.heartbeat_timeout,
            rejections: Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS)),
            log: LogLimiter::new(),
        }
    }

    /// Serves until `stop` resolves, and then until the requests in flight are done.
    pub(crate) async fn serve(mut self, app: Router, stop: impl Future<Output = ()>) {
        let app = TowerToHyperService::new(app);
        // Each connection holds a receiver until it ends.
        let (stopping, is_stopping) = watch::channel(());
        let mut stop = pin!(stop);
        loop {
            let (stream, address) = tokio::select! {
                accepted = Listener::accept(&mut self.listener) => accepted,
                () = &mut stop => break,
            };
            match self.limiter.admit(address.ip()) {
                Ok(permit) => {
                    self.serve_connection(stream, address, permit, &app, is_stopping.clone());
                }
                Err(rejection) => {
                    if self.log.allows() {
                        log::warn!("rejected a connection of {address}: {}", rejection.reason);
                    }
                    self.reject(stream, rejection);
                }
            }
        }
        drop((self.listener, is_stopping));
        let _ = stopping.send(());
        stopping.closed().await;
    }

    fn serve_connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
        app: &TowerToHyperService<Router>,
        mut is_stopping: watch::Receiver<()>,
    ) {
        // Small messages must leave at once.
        let _ = stream.set_nodelay(true);
        let stream = ThrottledStream::new(stream, permit, TokenBucket::new(self.byte_rate));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        let connection = self
            .http
            .serve_connection(TokioIo::new(Box::pin(stream)), app.clone());
        tokio::spawn(async move {
            let mut connection = pin!(connection.with_upgrades());
            let served = tokio::select! {
                served = &mut connection => served,
                _ = is_stopping.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                let error = Escaped::new(error);
                log::debug!("the connection of {address} failed: {error}");
            }
        });
    }

    /// Sends the status of a rejection; in a flood, closes without a response.
    fn reject(&self, mut stream: TcpStream, Rejection { status, reason }: Rejection) {
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
