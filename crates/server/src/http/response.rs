//! Responses.

use bytes::Bytes;
use core::fmt;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE},
};
use std::io;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Response = hyper::Response<Body>;

/// The response to a request that is not carried out.
pub(super) type Refusal = Box<Response>;

/// A response with a text in it.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = bytes(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}

/// A refusal with its reason.
pub(super) fn refusal(status: StatusCode, reason: impl Into<Bytes>) -> Refusal {
    Box::new(text(status, reason))
}

/// A response with these bytes.
pub(super) fn bytes(bytes: Bytes) -> Response {
    let body = Full::new(bytes).map_err(|never| match never {});
    Response::new(body.boxed_unsync())
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = bytes(Bytes::new());
    *response.status_mut() = status;
    response
}

/// The refusal of a method that is not one of these.
pub(super) fn method_not_allowed(allowed: &'static str) -> Refusal {
    let refusal = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    Box::new(with_headers(refusal, [(ALLOW, allowed)]))
}

/// The refusal of a request without a valid token.
pub(super) fn unauthorized(reason: impl fmt::Display) -> Refusal {
    let refusal = text(StatusCode::UNAUTHORIZED, format!("{reason}\n"));
    Box::new(with_headers(refusal, [(WWW_AUTHENTICATE, "Bearer")]))
}

/// The response with these headers, too.
pub(super) fn with_headers<const N: usize>(
    mut response: Response,
    headers: [(HeaderName, &'static str); N],
) -> Response {
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}
