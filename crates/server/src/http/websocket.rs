//! The handshake of a WebSocket (RFC 6455, section 4.2).

use crate::http::{
    headers::{elements, single},
    response::{self, Refusal, Response},
};
use hyper::{
    HeaderMap, Request, StatusCode, Version,
    body::Body,
    header::{
        CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use stateroom_wasmi_resume::SUBPROTOCOL;
use tungstenite::handshake::derive_accept_key;

const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The response to a handshake: the switch of protocols, or why there is none.
///
/// `known` are the subprotocols that may be chosen; if there are none, any may. Before them,
/// `stateroom.resume.1` is chosen if `may_resume`; returns whether it is, too.
pub(super) fn shake_hands<B: Body>(
    request: &Request<B>,
    known: &[String],
    may_resume: bool,
) -> Result<(Response, bool), Refusal> {
    const NO_UPGRADE: &str = "this is the URL of a WebSocket; a proxy on the way must pass on the \
                              headers Connection and Upgrade\n";
    let headers = request.headers();
    let is_upgrade = request.version() >= Version::HTTP_11
        && has_element(headers, CONNECTION, "upgrade")
        && has_element(headers, UPGRADE, "websocket");
    if !is_upgrade {
        return Err(upgrade_required(NO_UPGRADE));
    }
    if single(headers, SEC_WEBSOCKET_VERSION).flatten() != Some("13") {
        return Err(upgrade_required(
            "the version of the WebSocket must be 13\n",
        ));
    }
    let key = single(headers, SEC_WEBSOCKET_KEY).flatten();
    let key = key.filter(|key| is_key(key));
    let key = key.ok_or_else(|| bad_request("Sec-WebSocket-Key must be 16 bytes in Base64\n"))?;
    // What follows the head is the client's first frame, and must not be taken for a body.
    if !request.body().is_end_stream() {
        return Err(bad_request("a handshake must have no body\n"));
    }
    let subprotocol = choose_subprotocol(headers, known, may_resume)
        .map_err(|InvalidSubprotocols| bad_request("Sec-WebSocket-Protocol must list tokens\n"))?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.expect("Base64 is a header's value");
    let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let resumes = may_resume && subprotocol.as_ref().is_some_and(|name| name == SUBPROTOCOL);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok((response, resumes))
}

/// Whether this is a token (RFC 9110, section 5.6.2), as names of subprotocols must be.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_token_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token_byte)
}

fn has_element(headers: &HeaderMap, name: HeaderName, element: &str) -> bool {
    elements(headers, name).any(|listed| listed.eq_ignore_ascii_case(element.as_bytes()))
}

/// Whether this is the Base64 of 16 bytes.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    digits.len() == 22 && digits.bytes().all(is_digit)
}

/// A name that is no token, or no name at all.
struct InvalidSubprotocols;

/// The first subprotocol that the client offers and the server knows.
///
/// A browser closes a connection whose offers get no answer.
fn choose_subprotocol(
    headers: &HeaderMap,
    known: &[String],
    may_resume: bool,
) -> Result<Option<HeaderValue>, InvalidSubprotocols> {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    let offered: Vec<_> = elements(headers, SEC_WEBSOCKET_PROTOCOL).collect();
    if offered.is_empty() || !offered.iter().all(|name| is_token(name)) {
        return Err(InvalidSubprotocols);
    }
    if may_resume && offered.contains(&SUBPROTOCOL.as_bytes()) {
        return Ok(Some(HeaderValue::from_static(SUBPROTOCOL)));
    }
    let is_known =
        |name: &&[u8]| known.is_empty() || known.iter().any(|known| known.as_bytes() == *name);
    let chosen = offered.into_iter().find(is_known);
    Ok(chosen.and_then(|name| HeaderValue::from_bytes(name).ok()))
}

fn upgrade_required(reason: &'static str) -> Refusal {
    let mut response = refusal(StatusCode::UPGRADE_REQUIRED, reason);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
    response
}

fn bad_request(reason: &'static str) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, reason)
}

fn refusal(status: StatusCode, reason: &'static str) -> Refusal {
    let mut response = response::refusal(status, reason);
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, VERSION);
    response
}
