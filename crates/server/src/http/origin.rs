//! The origin check against cross-site WebSocket hijacking.
//!
//! A browser lets any page open a WebSocket to any server, and sends the page's origin in `Origin`.
//! Other clients send none, or any they like: the check does not keep those out, it keeps pages
//! from using the browser of somebody who can reach this server.

use crate::{config::ServerConfig, rate_limit::LogLimiter};
use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{HOST, ORIGIN, UPGRADE},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use stateroom_wasmi_host::Escaped;
use std::{net::IpAddr, sync::Arc};

/// The allowed origins, besides the server's own.
#[derive(Clone)]
pub(super) struct Origins {
    allowed: Arc<Vec<String>>,
    /// Whether the server listens on a loopback address. Then DNS rebinding can point an attacker's
    /// name here, so only local names count as the server's own.
    is_local: bool,
    log: Arc<LogLimiter>,
}

impl Origins {
    pub(super) fn new(config: &ServerConfig) -> Self {
        // In the form that browsers send.
        let allowed = config.allowed_origins.iter();
        let allowed = allowed
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        Self {
            allowed: Arc::new(allowed),
            is_local: config.host.is_loopback(),
            log: Arc::new(LogLimiter::new()),
        }
    }

    /// The request's origin, if it is not allowed.
    fn rejected<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        // Browsers send one; several match nothing.
        let origin = single(headers, ORIGIN)?.unwrap_or("null");
        let is_listed = self
            .allowed
            .iter()
            .any(|allowed| allowed == "*" || allowed == origin);
        let host = single(headers, HOST).flatten();
        let is_own = host.is_some_and(|host| self.is_own(origin, host));
        (!is_listed && !is_own).then_some(origin)
    }

    /// Whether the origin is this server, as named in the request's `Host`.
    fn is_own(&self, origin: &str, host: &str) -> bool {
        let is_from_host = origin
            .split_once("://")
            .is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
        is_from_host && (!self.is_local || is_local_name(host))
    }
}

/// Rejects WebSockets and unsafe methods from other origins. Reading needs no check: browsers keep
/// responses from pages of other origins.
pub(super) async fn guard(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let is_guarded = !request.method().is_safe() || request.headers().contains_key(UPGRADE);
    match origins.rejected(request.headers()) {
        Some(origin) if is_guarded => {
            let origin = Escaped::new(origin).at_most(200);
            if origins.log.allows() {
                log::info!("rejected a page of the origin {origin:?}; `--allow-origin` allows it");
            }
            let message = format!("the origin {origin:?} is not allowed\n");
            (StatusCode::FORBIDDEN, message).into_response()
        }
        _ => next.run(request).await,
    }
}

/// A header that may occur once: `None` if absent, `Some(None)` if repeated or not text.
fn single(headers: &HeaderMap, name: HeaderName) -> Option<Option<&str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(first.to_str().ok().filter(|_| values.next().is_none()))
}

/// Whether nobody else can own this name: `localhost`, its subdomains, and IP addresses.
fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_matches(['[', ']'])
        .to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}
