//! Reading the headers of requests.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderName},
};

/// A header that may occur once: `None` if absent, `Some(None)` if repeated or not text.
pub(super) fn single(headers: &HeaderMap, name: HeaderName) -> Option<Option<&str>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    Some(first.to_str().ok().filter(|_| lines.next().is_none()))
}

/// The elements of a header that is a list, over all its lines.
pub(super) fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // Empty elements are to be ignored (RFC 9110, section 5.6.1.2).
    elements
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The token of `Authorization: Bearer TOKEN`.
pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = single(headers, AUTHORIZATION).flatten()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| token.trim_ascii())
}
