//! The typed exports of a guest.

use super::{compiled::Compiled, host_state::HostState, start::START};
use crate::{
    abi::{AbiVersion, CONSTRUCTOR, Call, Handlers, MEMORY, Parameters},
    error::FaultCause,
};
use heapless::Vec;
use wasmi::{Error, Instance, Memory, Store, TypedFunc, TypedResumableCall};

pub(super) struct Exports {
    pub(super) abi: AbiVersion,
    instance: Instance,
    pub(super) memory: Memory,
    /// What must run before the guest is initialised, by name, the last first: its start function, and
    /// the constructor of a WASI reactor. Each until it has run.
    pub(super) startup: Vec<(&'static str, TypedFunc<(), ()>), 2>,
    pub(super) malloc: TypedFunc<u32, u32>,
    pub(super) free: TypedFunc<(u32, u32), ()>,
    handlers: Handlers<Handler>,
}

/// A handler by its parameters.
#[derive(Clone, Copy)]
enum Handler {
    None(TypedFunc<(), ()>),
    Client(TypedFunc<u32, ()>),
    Payload(TypedFunc<(u32, u32), ()>),
    ClientAndPayload(TypedFunc<(u32, u32, u32), ()>),
    #[cfg_attr(
        not(feature = "snapshot"),
        expect(dead_code, reason = "it is not called")
    )]
    ReturnsPayload(TypedFunc<(), u64>),
    /// An optional one that the module does not have.
    Missing,
}

impl Exports {
    /// None is missing in a module that passed the check when it was loaded.
    pub(super) fn new(
        compiled: &Compiled,
        store: &Store<HostState>,
        instance: Instance,
    ) -> Result<Self, Error> {
        let abi = compiled.abi;
        let memory = instance
            .get_memory(store, MEMORY)
            .ok_or_else(|| Error::new("no memory"))?;
        let description = abi.description();
        let handlers = description.handlers.try_map(|handler| {
            let name = handler.export;
            if instance.get_export(store, name).is_none() {
                return Ok(Handler::Missing);
            }
            Ok::<_, Error>(match handler.parameters {
                Parameters::None => Handler::None(instance.get_typed_func(store, name)?),
                Parameters::Client => Handler::Client(instance.get_typed_func(store, name)?),
                Parameters::Payload => Handler::Payload(instance.get_typed_func(store, name)?),
                Parameters::ClientAndPayload => {
                    Handler::ClientAndPayload(instance.get_typed_func(store, name)?)
                }
                Parameters::ReturnsPayload => {
                    Handler::ReturnsPayload(instance.get_typed_func(store, name)?)
                }
            })
        })?;
        let constructor = instance.get_typed_func(store, CONSTRUCTOR.0).ok();
        let start = compiled
            .has_start
            .then(|| instance.get_typed_func(store, START))
            .transpose()?;
        let constructor = constructor.map(|function| (CONSTRUCTOR.0, function));
        let start = start.map(|function| ("start", function));
        let startup = constructor.into_iter().chain(start).collect();
        Ok(Self {
            abi,
            instance,
            memory,
            startup,
            malloc: instance.get_typed_func(store, description.malloc)?,
            free: instance.get_typed_func(store, description.free)?,
            handlers,
        })
    }

    /// Calls the handler of an event whose payload is at `ptr`.
    #[inline]
    pub(super) fn call_handler(
        &self,
        store: &mut Store<HostState>,
        call: &Call<'_>,
        ptr: u32,
        len: u32,
    ) -> Result<TypedResumableCall<()>, Error> {
        match self.handlers.of(call) {
            Handler::None(handler) => handler.call_resumable(store, ()),
            Handler::Client(handler) => handler.call_resumable(store, client(call)),
            Handler::Payload(handler) => handler.call_resumable(store, (ptr, len)),
            Handler::ClientAndPayload(handler) => {
                handler.call_resumable(store, (client(call), ptr, len))
            }
            Handler::ReturnsPayload(_) | Handler::Missing => Err(Error::new("no such export")),
        }
    }

    /// Calls the handler that returns the guest's state.
    #[cfg(feature = "snapshot")]
    pub(super) fn call_save(
        &self,
        store: &mut Store<HostState>,
    ) -> Result<TypedResumableCall<u64>, Error> {
        match &self.handlers.save {
            Handler::ReturnsPayload(handler) => handler.call_resumable(store, ()),
            _ => Err(Error::new("no such export")),
        }
    }

    /// Checks the version numbers in memory, which the guest may have written itself.
    pub(super) fn check_versions(&self, store: &Store<HostState>) -> Result<(), FaultCause> {
        let memory = self.memory.data(store);
        for &(name, expected) in self.abi.description().version_globals {
            let Some(global) = self.instance.get_global(store, name) else {
                continue;
            };
            let address = global.get(store).i32().unwrap_or_default().cast_unsigned();
            let number = memory
                .get(address as usize..)
                .and_then(|rest| rest.first_chunk());
            let Some(number) = number else {
                return Err(FaultCause::BadPointer {
                    function: name,
                    ptr: address,
                    len: 4,
                });
            };
            let found = i32::from_le_bytes(*number);
            if found != expected {
                return Err(FaultCause::WrongVersion {
                    name,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

/// The client of an event; 0 is no client's id.
const fn client(call: &Call<'_>) -> u32 {
    match call {
        Call::Connect(client) | Call::Disconnect(client) | Call::Message(client, _) => client.0,
        Call::Init { .. } | Call::Timer | Call::Save | Call::Load(_) => 0,
    }
}
