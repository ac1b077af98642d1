//! Which web pages may talk to the rooms.
//!
//! A browser lets any page open a WebSocket to any server, and says in `Origin` where the page is
//! from. Whoever is no browser sends no `Origin`, or what it likes; this is no way to keep such
//! clients out, but to keep a page from using the browser of somebody who can reach this server.

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
use std::{format, net::IpAddr, string::String, sync::Arc, vec::Vec};

/// The origins that may talk to the rooms, besides the server's own.
#[derive(Clone)]
pub(crate) struct Origins {
    allowed: Arc<Vec<String>>,
    /// Whether only this machine reaches the server. Then an attacker's own name may have been made
    /// to point here ("DNS rebinding"), so that a name counts as ours only if it is `localhost`.
    is_local: bool,
    log: Arc<LogLimiter>,
}

impl Origins {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        // As browsers write them.
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

    /// The origin, if there is one that may not talk to the rooms.
    fn refused<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        // More than one is none that a browser sends.
        let origin = only(headers, ORIGIN)?.unwrap_or("null");
        let is_listed = self
            .allowed
            .iter()
            .any(|allowed| allowed == "*" || allowed == origin);
        let host = only(headers, HOST).flatten();
        (!is_listed && !host.is_some_and(|host| self.is_same(origin, host))).then_some(origin)
    }

    /// Whether the page is from this server, which its client knows by this name.
    fn is_same(&self, origin: &str, host: &str) -> bool {
        let is_from_host = origin
            .split_once("://")
            .is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
        is_from_host && (!self.is_local || is_local_name(host))
    }
}

/// Refuses what a page of a foreign origin asks for: WebSockets, and whatever changes something.
/// What it may only read, the browser keeps from it.
pub(crate) async fn guard(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let is_guarded = !request.method().is_safe() || request.headers().contains_key(UPGRADE);
    match origins.refused(request.headers()) {
        Some(origin) if is_guarded => {
            if origins.log.may() {
                log::info!(
                    "a page of the origin {origin:?} was refused; `--allow-origin` lets it in"
                );
            }
            let answer = format!("pages of the origin {origin:?} are not allowed here\n");
            (StatusCode::FORBIDDEN, answer).into_response()
        }
        _ => next.run(request).await,
    }
}

/// A header that may come once: nothing if it is not there, and nothing in it if it comes more
/// often, or is no text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<Option<&str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(first.to_str().ok().filter(|_| values.next().is_none()))
}

/// Whether nobody else can own this name: `localhost` and what is below it, and addresses.
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
