//! What differs from one ABI to the next, as data.

use super::{Call, Signature};
use crate::event::MessagePayload;

/// A function's name with its type in the shorthand of [`Signature`]: `i` is an i32, `I` an i64,
/// results follow the colon. The unsigned numbers of the ABIs are i32 in WebAssembly.
pub(crate) type Function = (&'static str, &'static str);

/// The name of the memory that a module of any ABI must export.
pub(crate) const MEMORY: &str = "memory";

/// The module name of the ABIs' own imports.
pub(crate) const ENV: &str = "env";

/// An optional export, called once before everything else: the constructor of a WASI reactor, which a
/// module may have without importing anything of WASI.
pub(crate) const CONSTRUCTOR: Function = ("_initialize", ":");

/// The export that runs a WASI command, and that no room needs.
pub(crate) const COMMAND: &str = "_start";

/// What a module of an ABI must export and what it may import.
pub(crate) struct Abi {
    /// The version as it is displayed.
    pub(crate) name: &'static str,
    /// The guest's allocator: from a length to a pointer.
    pub(crate) malloc: &'static str,
    /// Takes the pointer and the length back.
    pub(crate) free: &'static str,
    /// Whether the room's id is allocated, written and freed before the first event, although no
    /// handler takes it.
    pub(crate) allocates_room_id: bool,
    /// A text that modules of the published SDK contain, and no others.
    pub(crate) sdk_text: &'static str,
    /// The exports that events are delivered to.
    pub(crate) handlers: Handlers<Handler>,
    /// An export that identifies this ABI even when the exports of another are complete.
    pub(crate) identified_by: Option<&'static str>,
    /// What a module may import from [`ENV`].
    pub(crate) imports: &'static [Function],
    /// Exported globals that hold the *addresses* of version numbers, and the expected numbers. A
    /// module without them is accepted, since the documented interface of 0.2 does not list them.
    pub(crate) version_globals: &'static [(&'static str, i32)],
    /// Whether the JIT host looks at these numbers after the first event, and not before it.
    pub(crate) versions_after_init: bool,
}

/// An export that takes events.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    pub(crate) export: &'static str,
    pub(crate) parameters: Parameters,
}

/// The parameters of a handler; it has no results, but for one. A payload is a pointer and a length.
#[derive(Clone, Copy)]
pub(crate) enum Parameters {
    None,
    Client,
    Payload,
    ClientAndPayload,
    /// There are none, but a result: a pointer in the upper 32 bits, and a length in the lower.
    ReturnsPayload,
}

/// One value for each kind of call.
#[derive(Clone, Copy)]
pub(crate) struct Handlers<T> {
    pub(crate) init: T,
    pub(crate) connect: T,
    pub(crate) disconnect: T,
    pub(crate) timer: T,
    pub(crate) text: T,
    pub(crate) bytes: T,
    /// Of [`SAVE`], which a module may have.
    pub(crate) save: T,
    /// Of [`LOAD`], which a module may have.
    pub(crate) load: T,
}

/// An export of this host's own, the same in each ABI: returns where the guest has put its state, for a guest
/// of another module with which the room goes on.
pub(crate) const SAVE: Handler = Handler::new("stateroom_save", Parameters::ReturnsPayload);

/// Its counterpart: takes that state in a fresh guest.
pub(super) const LOAD: Handler = Handler::new("stateroom_load", Parameters::Payload);

impl Abi {
    /// The functions that a module must export, each once.
    pub(crate) fn exports(&self) -> impl Iterator<Item = Function> {
        let handlers = self.handlers.as_array();
        let is_first = move |(i, handler): &(usize, Handler)| {
            handlers[..*i].iter().all(|h| h.export != handler.export)
        };
        [(self.malloc, "i:i"), (self.free, "ii:")]
            .into_iter()
            .chain(
                (0..)
                    .zip(handlers)
                    .filter(is_first)
                    .map(|(_, handler)| handler.function()),
            )
    }

    /// The functions that a module may export.
    pub(crate) fn optional_exports(&self) -> [Function; 3] {
        let Handlers { save, load, .. } = self.handlers;
        [CONSTRUCTOR, save.function(), load.function()]
    }

    /// The type of the function of [`ENV`] with this name.
    pub(crate) fn import(&self, name: &str) -> Option<Signature> {
        find(self.imports, name)
    }
}

impl Handler {
    pub(crate) const fn new(export: &'static str, parameters: Parameters) -> Self {
        Self { export, parameters }
    }

    const fn function(self) -> Function {
        (self.export, self.parameters.shorthand())
    }
}

impl Parameters {
    const fn shorthand(self) -> &'static str {
        match self {
            Self::None => ":",
            Self::Client => "i:",
            Self::Payload => "ii:",
            Self::ClientAndPayload => "iii:",
            Self::ReturnsPayload => ":I",
        }
    }
}

impl Handlers<Handler> {
    /// The same for each kind of event.
    pub(super) const fn all(value: Handler) -> Self {
        Self {
            init: value,
            connect: value,
            disconnect: value,
            timer: value,
            text: value,
            bytes: value,
            save: SAVE,
            load: LOAD,
        }
    }
}

impl<T: Copy> Handlers<T> {
    /// Those of events.
    const fn as_array(&self) -> [T; 6] {
        [
            self.init,
            self.connect,
            self.disconnect,
            self.timer,
            self.text,
            self.bytes,
        ]
    }

    #[inline]
    pub(crate) const fn of(&self, call: &Call<'_>) -> &T {
        match call {
            Call::Init { .. } => &self.init,
            Call::Connect(_) => &self.connect,
            Call::Disconnect(_) => &self.disconnect,
            Call::Timer => &self.timer,
            Call::Message(_, MessagePayload::Text(_)) => &self.text,
            Call::Message(_, MessagePayload::Bytes(_)) => &self.bytes,
            Call::Save => &self.save,
            Call::Load(_) => &self.load,
        }
    }

    pub(crate) fn try_map<U, E>(&self, f: impl Fn(T) -> Result<U, E>) -> Result<Handlers<U>, E> {
        Ok(Handlers {
            init: f(self.init)?,
            connect: f(self.connect)?,
            disconnect: f(self.disconnect)?,
            timer: f(self.timer)?,
            text: f(self.text)?,
            bytes: f(self.bytes)?,
            save: f(self.save)?,
            load: f(self.load)?,
        })
    }
}

pub(super) fn find(functions: &[Function], name: &str) -> Option<Signature> {
    let (_, shorthand) = functions.iter().find(|(known, _)| *known == name)?;
    Some(Signature::from_shorthand(shorthand))
}
