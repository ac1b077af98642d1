//! TLS: the certificate, and the stream.

mod certificate;
mod records;
mod stream;

pub use self::certificate::{TlsError, TlsFiles};
pub(crate) use self::stream::{TlsSession, TlsStream};

use rustls::{ServerConfig, ServerConnection, crypto::aws_lc_rs, server::ResolvesServerCert};
use std::{io, sync::Arc};
use tokio::net::TcpStream;

/// Begins TLS on connections.
#[derive(Clone)]
pub(crate) struct TlsAcceptor(Arc<ServerConfig>);

impl TlsAcceptor {
    /// With the certificate of these files, also after they have changed.
    pub(crate) fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(certificate::Resolver::open(files)?);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Tls)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        // HTTP/2 has other WebSockets.
        config.alpn_protocols = Vec::from([b"http/1.1".to_vec()]);
        Ok(Self(Arc::new(config)))
    }

    /// The handshake follows with the first read.
    pub(crate) fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        /// What is encrypted and not sent, of a client that does not read: as much as one record. The send
        /// queues, which count towards the limits, have the rest.
        const MAX_UNSENT_BYTES: usize = 16 << 10;
        let mut session = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(MAX_UNSENT_BYTES));
        Ok(TlsStream::new(tcp, TlsSession::new(session)))
    }
}
