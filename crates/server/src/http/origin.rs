//! Which pages may use the server: checks of `Host` and `Origin`.
//!
//! A browser lets any page open a WebSocket to any server, and sends the page's origin in `Origin`
//! (cross-site WebSocket hijacking). And an attacker's name can be made to resolve to a local
//! address: then the server's responses count as the attacker's own, and only `Host` tells (DNS
//! rebinding). Other clients send any `Host` and `Origin` they like: the checks do not keep those
//! out, they keep pages from using the browser of somebody who can reach this server.

use crate::{
    config::ServerConfig,
    http::{
        headers::single,
        response::{self, Refusal},
    },
    log_limit::LogLimiter,
};
use core::str::FromStr;
use hyper::{
    Request, StatusCode, Version,
    header::{HOST, ORIGIN, UPGRADE},
    http::uri::Authority,
};
use stateroom_wasmi_host::Escaped;
use std::net::IpAddr;

/// The checks of `Host` and `Origin`.
pub(super) struct Origins {
    /// Besides the server's own.
    allowed: Vec<AllowedOrigin>,
    /// Whether the server listens on loopback addresses alone. Then only local names count as the
    /// server's own.
    is_local: bool,
    log: LogLimiter,
}

/// What `--allow-origin` can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedOrigin {
    /// `*`
    Any,
    /// `null`: pages from files, among others.
    Null,
    Page(Origin),
}

/// Where a page is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// In lower case.
    scheme: String,
    host: Host,
}

/// A host, as in `Host` and in an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// In lower case.
    name: String,
    port: Option<u16>,
}

impl Origins {
    /// `is_local`: whether all addresses that the server listens on are loopback addresses.
    pub(super) fn new(config: &ServerConfig, is_local: bool) -> Self {
        let allowed = config.allowed_origins.iter();
        Self {
            allowed: allowed.filter_map(|origin| origin.parse().ok()).collect(),
            is_local,
            log: LogLimiter::new(),
        }
    }

    /// Of an address for operators. That pages of other origins may join rooms does not mean that they may
    /// use the browser of an operator, unless that must have a token, which they do not know.
    pub(super) fn for_operators(config: &ServerConfig, is_local: bool) -> Self {
        let mut origins = Self::new(config, is_local);
        let has_token = config.admin_token.is_some();
        let is_page = |origin: &AllowedOrigin| matches!(origin, AllowedOrigin::Page(_));
        origins
            .allowed
            .retain(|origin| has_token && is_page(origin));
        origins
    }

    /// Refuses a request that is not allowed.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let host = requested_host(request).map_err(|InvalidHost| {
            response::refusal(StatusCode::BAD_REQUEST, "the request must name one host\n")
        })?;
        if let Some(host) = &host
            && self.is_local
            && !is_local_name(&host.name)
            && !self.allowed.iter().any(|allowed| allowed.has_host(host))
        {
            return Err(self.forbid("a request for the", "host", &host.name));
        }
        // Reading needs no check of the origin: browsers keep responses from pages of others.
        let is_guarded = !request.method().is_safe() || request.headers().contains_key(UPGRADE);
        // Browsers send one; several are nobody's.
        match single(request.headers(), ORIGIN) {
            Some(origin) if is_guarded => {
                let origin = origin.unwrap_or("null");
                if self.allows(origin, host.as_ref()) {
                    return Ok(());
                }
                Err(self.forbid("a page of the", "origin", origin))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, origin: &str, host: Option<&Host>) -> bool {
        let origin = match origin {
            "null" => AllowedOrigin::Null,
            _ => match origin.parse() {
                Ok(origin) => AllowedOrigin::Page(origin),
                Err(InvalidOrigin) => return self.allowed.contains(&AllowedOrigin::Any),
            },
        };
        let is_listed = self
            .allowed
            .iter()
            .any(|allowed| *allowed == AllowedOrigin::Any || *allowed == origin);
        let is_own = || match (&origin, host) {
            (AllowedOrigin::Page(origin), Some(host)) => origin.is_of(host),
            _ => false,
        };
        is_listed || is_own()
    }

    fn forbid(&self, whose: &str, what: &str, name: &str) -> Refusal {
        let name = Escaped::new(name).at_most(200);
        if let Some(permit) = self.log.permit() {
            log::info!("rejected {whose} {what} {name:?}; `--allow-origin` allows it{permit}");
        }
        let message = format!("the {what} {name:?} is not allowed\n");
        response::refusal(StatusCode::FORBIDDEN, message)
    }
}

impl AllowedOrigin {
    fn has_host(&self, host: &Host) -> bool {
        match self {
            Self::Any => true,
            Self::Null => false,
            // A proxy in front of the server may have any port.
            Self::Page(origin) => origin.host.name == host.name,
        }
    }
}

impl Origin {
    /// Whether pages of this origin are from the host that a request names.
    ///
    /// The scheme is not known there: a proxy may have added the encryption.
    fn is_of(&self, host: &Host) -> bool {
        let is_web = matches!(self.scheme.as_str(), "http" | "https");
        let port = host.port.or_else(|| default_port(&self.scheme));
        is_web && self.host.name == host.name && self.host.port == port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A text that is not what `--allow-origin` can be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidOrigin;

impl FromStr for AllowedOrigin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        match text {
            "*" => Ok(Self::Any),
            "null" => Ok(Self::Null),
            _ => {
                // As many copy it.
                let origin: Origin = text.strip_suffix('/').unwrap_or(text).parse()?;
                match origin.scheme.as_str() {
                    // A page has the scheme with which it was loaded, whatever it connects with.
                    "ws" | "wss" => Err(InvalidOrigin),
                    _ => Ok(Self::Page(origin)),
                }
            }
        }
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    /// Parses `scheme://host[:port]`.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, host) = text.split_once("://").ok_or(InvalidOrigin)?;
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(is_scheme_byte)
        {
            return Err(InvalidOrigin);
        }
        let scheme = scheme.to_ascii_lowercase();
        let mut host: Host = host.parse().map_err(|InvalidHost| InvalidOrigin)?;
        host.port = host.port.or_else(|| default_port(&scheme));
        Ok(Self { scheme, host })
    }
}

/// A host that is none, is missing, or is one of several.
struct InvalidHost;

impl FromStr for Host {
    type Err = InvalidHost;

    /// Parses `host[:port]`.
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let authority: Authority = text.parse().map_err(|_| InvalidHost)?;
        let name = authority.host();
        // User information would stand before it.
        let port = text.strip_prefix(name).ok_or(InvalidHost)?;
        let port = match port.strip_prefix(':') {
            // The port may be empty (RFC 3986, section 3.2.3).
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| InvalidHost)?)
            }
            Some(_) => return Err(InvalidHost),
        };
        Ok(Self {
            name: name.to_ascii_lowercase(),
            port,
        })
    }
}

/// The host that a request is for (RFC 9112, section 3.2); none of HTTP/1.0 need not name one.
fn requested_host<B>(request: &Request<B>) -> Result<Option<Host>, InvalidHost> {
    let header = match single(request.headers(), HOST) {
        None if request.version() >= Version::HTTP_11 => return Err(InvalidHost),
        None => None,
        Some(host) => Some(host.ok_or(InvalidHost)?.parse()?),
    };
    // An absolute URL in the request line overrides the header.
    match request.uri().authority() {
        Some(authority) => authority.as_str().parse().map(Some),
        None => Ok(header),
    }
}

/// Whether nobody else can own this name: `localhost`, its subdomains, and IP addresses.
fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}
