//! The files of a folder.

use crate::{
    config::ConfigError,
    http::{
        headers::single,
        open_files::OpenFilesLimit,
        response::{self, Body, Response},
    },
};
use bytes::BytesMut;
use core::ops::Range;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use http_range_header::{EndPosition, StartPosition, parse_range_header};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Frame,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
    },
};
use percent_encoding::percent_decode_str;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    task::spawn_blocking,
};

/// Serves the regular files below a folder, except those whose name, or that of a folder on the
/// way, begins with a dot.
pub(crate) struct Files {
    /// Without symbolic links.
    root: PathBuf,
}

/// What a path leads to.
enum Found {
    File(OpenFile),
    /// A folder with an index, whose URL lacks the slash at its end.
    Folder,
}

struct OpenFile {
    file: File,
    content_type: HeaderValue,
    bytes: u64,
    /// As in a header; none for a time that has no such form.
    modified: Option<String>,
}

impl Files {
    /// The files of a folder.
    pub(crate) fn open(dir: &Path) -> Result<Self, ConfigError> {
        let error = |error| ConfigError::StaticDir {
            dir: dir.to_owned(),
            error,
        };
        let root = dir.canonicalize().map_err(error)?;
        if !root.is_dir() {
            return Err(error(io::ErrorKind::NotADirectory.into()));
        }
        Ok(Self { root })
    }

    /// The response to a `GET` or `HEAD` of the file at `path`, which is a part of the request's.
    pub(super) async fn respond<B>(&self, request: &Request<B>, path: &str) -> Response {
        let not_found = || response::text(StatusCode::NOT_FOUND, "not found\n");
        let Some((path, is_folder)) = relative_path(path) else {
            return not_found();
        };
        let root = self.root.clone();
        let found = spawn_blocking(move || find(&root, &path, is_folder)).await;
        match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Found::File(file)) => {
                file.into_response(request.method(), request.headers())
                    .await
            }
            Ok(Found::Folder) => redirect(request),
            Err(error) if OpenFilesLimit::of(&error).is_some() => {
                let reason = "too many open files\n";
                response::text(StatusCode::SERVICE_UNAVAILABLE, reason)
            }
            Err(_) => not_found(),
        }
    }
}

/// The path of a URL, relative to the root, and whether it is that of a folder. None if it could
/// lead anywhere but down, or if a part of it begins with a dot.
fn relative_path(path: &str) -> Option<(PathBuf, bool)> {
    let mut parts: Vec<_> = path.strip_prefix('/')?.split('/').collect();
    let is_folder = parts.pop_if(|last| last.is_empty()).is_some();
    let mut relative = PathBuf::new();
    for part in parts {
        let part = percent_decode_str(part).decode_utf8().ok()?;
        let is_separator = |c| matches!(c, '/' | '\\' | '\0') || (cfg!(windows) && c == ':');
        if part.is_empty() || part.starts_with('.') || part.contains(is_separator) {
            return None;
        }
        relative.push(&*part);
    }
    Some((relative, is_folder))
}

fn find(root: &Path, relative: &Path, is_folder: bool) -> io::Result<Found> {
    let path = resolve(root, relative)?;
    if !path.is_dir() {
        return if is_folder {
            Err(io::ErrorKind::NotADirectory.into())
        } else {
            open(&path).map(Found::File)
        };
    }
    let index = open(&resolve(root, &relative.join("index.html"))?)?;
    Ok(if is_folder {
        Found::File(index)
    } else {
        Found::Folder
    })
}

/// Follows symbolic links, but not out of the root, nor to a name that begins with a dot.
fn resolve(root: &Path, relative: &Path) -> io::Result<PathBuf> {
    let path = root.join(relative).canonicalize()?;
    let below = path.strip_prefix(root).map_err(io::Error::other)?;
    let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    if below.iter().any(is_hidden) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(path)
}

/// Opens a regular file.
fn open(path: &Path) -> io::Result<OpenFile> {
    // Opening a device may have effects.
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    // In case that it has become a FIFO meanwhile, which would otherwise wait for a writer.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let content_type = mime_guess::from_path(path).first_or_octet_stream();
    Ok(OpenFile {
        file,
        content_type: HeaderValue::try_from(content_type.as_ref()).map_err(io::Error::other)?,
        bytes: metadata.len(),
        modified: metadata.modified().ok().and_then(http_date),
    })
}

/// No byte of a range is in the file.
struct Unsatisfiable;

impl OpenFile {
    async fn into_response(self, method: &Method, headers: &HeaderMap) -> Response {
        let mut response = match self.requested_range(method, headers) {
            _ if self.is_unmodified(headers) => response::empty(StatusCode::NOT_MODIFIED),
            Ok(range) => {
                let part = range.clone().unwrap_or(0..self.bytes);
                let length = part.end - part.start;
                let Ok(body) = body(self.file, part).await else {
                    return response::empty(StatusCode::INTERNAL_SERVER_ERROR);
                };
                let mut response = Response::new(body);
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, self.content_type);
                headers.insert(CONTENT_LENGTH, length.into());
                headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
                if let Some(Range { start, end }) = range {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    let range = format!("bytes {start}-{}/{}", end - 1, self.bytes);
                    insert(&mut response, CONTENT_RANGE, &range);
                }
                response
            }
            Err(Unsatisfiable) => {
                let mut response = response::empty(StatusCode::RANGE_NOT_SATISFIABLE);
                insert(
                    &mut response,
                    CONTENT_RANGE,
                    &format!("bytes */{}", self.bytes),
                );
                response
            }
        };
        if let Some(modified) = &self.modified {
            insert(&mut response, LAST_MODIFIED, modified);
        }
        response
    }

    /// Whether the client has the file as it is (RFC 9110, section 13.1.3).
    fn is_unmodified(&self, headers: &HeaderMap) -> bool {
        let time = |text: &str| httpdate::parse_http_date(text).ok();
        let since = single(headers, IF_MODIFIED_SINCE).flatten().and_then(time);
        let modified = self.modified.as_deref().and_then(time);
        !headers.contains_key(IF_NONE_MATCH)
            && modified.is_some_and(|modified| since.is_some_and(|since| modified <= since))
    }

    /// The part that is asked for (RFC 9110, section 14.2); none for the whole file, which is the
    /// response to several parts, too.
    fn requested_range(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<Range<u64>>, Unsatisfiable> {
        let is_current = |date: Option<&str>| date.is_some() && date == self.modified.as_deref();
        let ranges = single(headers, RANGE)
            .flatten()
            .filter(|_| *method == Method::GET)
            .filter(|_| single(headers, IF_RANGE).is_none_or(is_current))
            .and_then(|range| parse_range_header(range).ok());
        let Some([range]) = ranges.as_ref().map(|ranges| ranges.ranges.as_slice()) else {
            return Ok(None);
        };
        let start = match range.start {
            StartPosition::Index(start) => start,
            StartPosition::FromLast(bytes) => self.bytes.saturating_sub(bytes),
        };
        let end = match range.end {
            EndPosition::Index(last) if last < start => return Ok(None),
            EndPosition::Index(last) => last.saturating_add(1).min(self.bytes),
            EndPosition::LastByte => self.bytes,
        };
        if start < end {
            Ok(Some(start..end))
        } else {
            Err(Unsatisfiable)
        }
    }
}

/// A part of a file, read as it is sent.
async fn body(file: File, part: Range<u64>) -> io::Result<Body> {
    const CHUNK_BYTES: u64 = 32 << 10;
    let mut file = tokio::fs::File::from_std(file);
    if part.start > 0 {
        file.seek(SeekFrom::Start(part.start)).await?;
    }
    let chunks = stream::try_unfold((file, part), async |(mut file, mut part)| {
        let left = part.end - part.start;
        if left == 0 {
            return Ok(None);
        }
        let length = left.min(CHUNK_BYTES);
        let mut chunk = BytesMut::with_capacity(length as usize);
        let read = (&mut file).take(length).read_buf(&mut chunk).await?;
        if read == 0 {
            // It has become shorter.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        part.start += read as u64;
        Ok(Some((Frame::data(chunk.freeze()), (file, part))))
    });
    Ok(StreamBody::new(chunks).boxed_unsync())
}

/// To the URL of the folder, below which relative links are resolved.
fn redirect<B>(request: &Request<B>) -> Response {
    let uri = request.uri();
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut response = response::empty(StatusCode::TEMPORARY_REDIRECT);
    // The path has no empty part, so that this cannot be `//` and the name of another host.
    insert(&mut response, LOCATION, &format!("{}/{query}", uri.path()));
    response
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A time in the format of headers, which has years from 1970 to 9999.
fn http_date(time: SystemTime) -> Option<String> {
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    (since_1970 < YEAR_10000).then(|| httpdate::fmt_http_date(time))
}
