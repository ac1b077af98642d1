//! Who may connect, and as whom.

#[cfg(feature = "jwt")]
mod jwt;

#[cfg(feature = "jwt")]
pub use self::jwt::{JwtAuthenticator, JwtError, JwtKeyFile, JwtOptions};

use core::{fmt, future::Future, pin::Pin};
use hyper::HeaderMap;
use std::net::IpAddr;

/// Decides who may connect to a room, from the request of the WebSocket handshake.
///
/// Called on the runtime that serves HTTP. Each connection waits for its own decision alone; how many can
/// wait is bounded by [`ServerConfig::max_connections`](crate::ServerConfig::max_connections), and for how
/// long by [`ServerConfig::handshake_timeout`](crate::ServerConfig::handshake_timeout).
///
/// ```
/// use stateroom_wasmi_server::auth::{AuthError, AuthRequest, Authenticated, Authenticator, Identity};
///
/// #[derive(Debug)]
/// struct Passphrase(String);
///
/// impl Authenticator for Passphrase {
///     fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> Authenticated<'a> {
///         let is_right = request.credential == Some(&self.0);
///         Box::pin(async move {
///             match is_right {
///                 true => Ok(Identity::anonymous()),
///                 false => Err(AuthError::unauthorized("the passphrase is wrong")),
///             }
///         })
///     }
/// }
/// ```
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Who sends this request.
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> Authenticated<'a>;
}

/// A decision.
pub type Authenticated<'a> = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;

/// The request of a handshake.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct AuthRequest<'a> {
    /// The id of the room that the client wants to join.
    pub room: &'a str,
    /// The bearer token of `Authorization`, or else the `access_token` of the query, since pages cannot set
    /// the header of a WebSocket.
    pub credential: Option<&'a str>,
    /// All headers, such as cookies.
    pub headers: &'a HeaderMap,
    /// The client's address, as far as it is known; see
    /// [`ServerConfig::trusted_proxies`](crate::ServerConfig::trusted_proxies).
    pub address: IpAddr,
}

/// Without what is secret.
impl fmt::Debug for AuthRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthRequest")
            .field("room", &self.room)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub(crate) subject: Option<Box<str>>,
}

impl Identity {
    /// Somebody who may connect. A `?token=` gives such a client its id back.
    #[must_use]
    pub const fn anonymous() -> Self {
        Self { subject: None }
    }

    /// This user: has the same client id whenever it connects to a room, and one connection to it at a time.
    /// A `?token=` is ignored.
    #[must_use]
    pub fn user(subject: impl Into<Box<str>>) -> Self {
        Self {
            subject: Some(subject.into()),
        }
    }
}

/// Why a client may not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthError {
    pub(crate) kind: AuthErrorKind,
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthErrorKind {
    Unauthorized,
    Forbidden,
    Unavailable,
}

impl AuthError {
    /// Nobody knows who the client is: 401. The client gets the reason.
    pub fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(AuthErrorKind::Unauthorized, reason)
    }

    /// The client is known and may not join this room: 403. The client gets the reason.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(AuthErrorKind::Forbidden, reason)
    }

    /// Nobody can tell now: 503. The client gets the reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(AuthErrorKind::Unavailable, reason)
    }

    fn new(kind: AuthErrorKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { kind, reason }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for AuthError {}
