//! Rooms that come and go between running servers, for operators.

use super::{
    admin::{Admin, done},
    response::{self, Refusal, Response},
    routes::parameter_in,
};
use crate::rooms::{Reply, Rooms};
use core::{error::Error, time::Duration};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    body::Body,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName},
};
use stateroom_wasmi_host::Escaped;
use tokio::{sync::oneshot, time::timeout};

impl Admin {
    pub(super) async fn load(
        &self,
        id: &str,
        query: &Query,
        body: &mut impl RequestBody,
    ) -> Result<Response, Refusal> {
        // Several of them may have as much memory as a response.
        let _permit = self.admit().await?.response;
        let body = Limited::new(body, MAX_ROOM_BYTES).collect();
        let body = match timeout(LOAD_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let reason = format!("the room has more than {MAX_ROOM_BYTES} bytes\n");
                return Err(response::refusal(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            Ok(Err(_)) | Err(_) => {
                let reason = "the room has not come\n";
                return Err(response::refusal(StatusCode::REQUEST_TIMEOUT, reason));
            }
        };
        let (room, hold) = (String::from(id), query.seconds);
        let loaded = self.transfer(id, move |rooms, reply| {
            rooms.import(&room, &body, hold, reply)
        });
        let number = loaded.await?;
        log::info!("loaded room {:?}", Escaped::new(id).at_most(256));
        let response = response::text(StatusCode::CREATED, "loaded\n");
        Ok(match hold {
            Some(_) => with_hold(response, number),
            None => response,
        })
    }

    pub(super) async fn hold(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let permit = self.admit().await?;
        let room = String::from(id);
        let time = query.seconds.unwrap_or(DEFAULT_HOLD);
        // A board's room has to come, which may take long.
        let permit = permit.without_turn();
        let held = self.transfer(id, move |rooms, reply| rooms.begin_hold(&room, time, reply));
        let (number, file) = held.await?;
        let headers = [
            (CONTENT_TYPE, "application/octet-stream"),
            (CACHE_CONTROL, "no-store"),
        ];
        Ok(with_hold(permit.respond(file, headers), number))
    }

    pub(super) async fn resume(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let (room, hold) = (String::from(id), query.hold()?);
        let resumed = self.transfer(id, move |rooms, reply| rooms.end_hold(&room, hold, reply));
        resumed.await?;
        Ok(response::text(StatusCode::OK, "it goes on\n"))
    }

    pub(super) async fn moved(&self, id: &str, query: &Query) -> Result<Response, Refusal> {
        let (room, hold) = (String::from(id), query.hold()?);
        let location = query.to.clone();
        let moved = self.transfer(id, move |rooms, reply| {
            rooms.give_up(&room, hold, location.as_deref(), reply);
        });
        moved.await?;
        log::info!("gave up room {:?}", Escaped::new(id).at_most(256));
        Ok(response::text(StatusCode::OK, "given up\n"))
    }

    /// Asks the worker of a room for something whose result comes later.
    pub(super) async fn transfer<T: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(&mut dyn Rooms, Reply<T>) + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, result) = oneshot::channel();
        let reply: Reply<T> = Box::new(move |result| {
            // Fails if the client is gone.
            let _ = reply.send(result);
        });
        let asked = self
            .workers
            .ask_room(id, move |rooms| question(rooms, reply));
        match asked.await {
            Some(()) => done(result.await.ok()),
            None => done(None),
        }
    }
}

/// The longest file of a room that is loaded.
const MAX_ROOM_BYTES: usize = 64 << 20;

/// Time for a room's file to come.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a room is held if the request does not say, and the longest time.
const DEFAULT_HOLD: Duration = Duration::from_secs(30);
const MAX_HOLD: Duration = Duration::from_secs(300);

/// The header with the number of a hold.
const HOLD: HeaderName = HeaderName::from_static("stateroom-hold");

fn with_hold(mut response: Response, number: u64) -> Response {
    response.headers_mut().insert(HOLD, number.into());
    response
}

/// What a body must be to be read.
pub(super) trait RequestBody:
    Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin
{
}

impl<B> RequestBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin
{
}

/// The parameters of requests for rooms that come and go.
#[derive(Default)]
pub(super) struct Query {
    /// Time of a hold.
    seconds: Option<Duration>,
    /// The number of one.
    hold: Option<u64>,
    /// Where the room is now.
    to: Option<String>,
}

impl Query {
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let bad_request = |reason: String| response::refusal(StatusCode::BAD_REQUEST, reason);
        let query = request.uri().query().unwrap_or_default();
        let parameter = |name| {
            parameter_in(query, name)
                .map_err(|reason| response::refusal(StatusCode::BAD_REQUEST, reason))
        };
        let number = |name| {
            let parse = |text: Box<str>| {
                let number = text.parse::<u64>();
                number.map_err(|_| bad_request(format!("{name} is not a number\n")))
            };
            parameter(name)?.map(parse).transpose()
        };
        let to = parameter("to")?.map(String::from);
        if to
            .as_ref()
            .is_some_and(|to| to.len() > MAX_LOCATION_BYTES || to.contains(char::is_control))
        {
            let reason = format!("to is longer than {MAX_LOCATION_BYTES} bytes, or no URL\n");
            return Err(bad_request(reason));
        }
        let seconds = number("seconds")?.map(Duration::from_secs);
        Ok(Self {
            seconds: seconds.map(|time| time.min(MAX_HOLD)),
            hold: number("hold")?,
            to,
        })
    }

    fn hold(&self) -> Result<u64, Refusal> {
        let missing =
            || response::refusal(StatusCode::BAD_REQUEST, "the parameter hold is missing\n");
        self.hold.ok_or_else(missing)
    }
}

/// What fits into the reason of a close frame behind `moved to `.
const MAX_LOCATION_BYTES: usize = 114;
