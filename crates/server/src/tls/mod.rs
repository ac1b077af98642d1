//! TLS: the certificate, and the stream.

mod certificate;
mod stream;

pub use self::certificate::{TlsError, TlsFiles};
pub(crate) use self::stream::TlsStream;

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
        let session = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        Ok(TlsStream::new(tcp, Box::new(session)))
    }
}
