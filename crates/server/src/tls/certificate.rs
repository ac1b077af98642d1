//! The server's certificate, from files.

use crate::reload::Reloaded;
use core::fmt;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{error::Error, path::PathBuf, sync::Arc};

/// The files of a certificate, in PEM. They are read again when they have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of the certificate cannot be read, or is none.
    Certificate(pem::Error),
    /// The file of the key cannot be read, or is none.
    Key(pem::Error),
    /// They do not fit each other, or cannot be used.
    Tls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => write!(f, "cannot read the certificate: {error}"),
            Self::Key(error) => write!(f, "cannot read the key of the certificate: {error}"),
            Self::Tls(error) => write!(f, "cannot use the certificate: {error}"),
        }
    }
}

impl Error for TlsError {}

/// Gives each handshake the certificate that is in the files.
pub(super) struct Resolver {
    files: TlsFiles,
    key: Reloaded<CertifiedKey>,
}

impl Resolver {
    pub(super) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let key = load(files)?;
        let paths = [&*files.certificate, &*files.key];
        Ok(Self {
            files: files.clone(),
            key: Reloaded::new("the certificate", &paths, key),
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.get(|| load(&self.files)))
    }
}

/// Without the key.
impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.files).finish()
    }
}

fn load(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate);
    let certificates = certificates.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(TlsError::Certificate)?;
    if certificates.is_empty() {
        return Err(TlsError::Certificate(pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(TlsError::Key)?;
    // Fails if they do not fit each other.
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, key, &provider).map_err(TlsError::Tls)
}
