//! The factory, which implements the trait of either version.

use crate::{context::Context, error::WasmRuntimeError, service::Service};
use stateroom_wasmi_host::{FaultPolicy, Limits, LoadOptions, Module};
use std::{fs, path::Path, time::Duration};

/// Builds services from a module that is loaded once: `StateroomServiceFactory` of `stateroom` 0.4
/// (feature `v0_4`) and of 0.2 (feature `v0_2`).
///
/// Cloning is cheap. Rooms of one factory share an interpreter engine, which slows down threads that
/// run rooms at the same time: a program of many rooms makes a factory for each thread.
#[derive(Clone, Debug)]
pub struct WasmHostFactory {
    module: Module,
    settings: Settings,
}

/// What a service is built with besides its module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) on_fault: FaultPolicy,
    pub(crate) max_event_time: Option<Duration>,
    pub(crate) seed: Option<u64>,
}

impl Settings {
    pub(crate) const DEFAULT: Self = Self {
        on_fault: FaultPolicy::Continue,
        max_event_time: None,
        seed: None,
    };
}

impl WasmHostFactory {
    /// Loads a module from a file, with [`Limits::default`].
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no room: see [`WasmRuntimeError`].
    pub fn new<P>(wasm_file: P) -> anyhow::Result<Self>
    where
        P: AsRef<Path>,
    {
        let path = wasm_file.as_ref();
        log::info!("loading the module {path:?}");
        let wasm = fs::read(path).map_err(|error| WasmRuntimeError::File {
            path: path.to_owned(),
            error,
        })?;
        Self::from_bytes(&wasm)
    }

    /// Loads a module, with [`Limits::default`].
    ///
    /// # Errors
    ///
    /// If it is no room: see [`WasmRuntimeError`].
    pub fn from_bytes(wasm: &[u8]) -> anyhow::Result<Self> {
        let options = LoadOptions::new().simd(true);
        let module =
            Module::load_with(wasm, &Limits::default(), options).map_err(WasmRuntimeError::Load)?;
        Ok(Self::new_with_shared_module(module))
    }

    /// Takes a module that the program has loaded itself, with limits and options of its own.
    #[must_use]
    pub const fn new_with_shared_module(module: Module) -> Self {
        Self {
            module,
            settings: Settings::DEFAULT,
        }
    }

    /// What follows when a guest fails. Default [`FaultPolicy::Continue`].
    ///
    /// [`FaultPolicy::Rollback`] needs a module that was loaded [for it](LoadOptions::snapshots).
    #[must_use]
    pub const fn on_fault(mut self, policy: FaultPolicy) -> Self {
        self.settings.on_fault = policy;
        self
    }

    /// The time that an event may take; a guest that needs more has failed. It is looked at after
    /// each slice of fuel ([`Limits::fuel_per_slice`]). Default: none, since the limit of an event's
    /// fuel bounds its time, and does not depend on what else the machine does.
    #[must_use]
    pub const fn max_event_time(mut self, time: Option<Duration>) -> Self {
        self.settings.max_event_time = time;
        self
    }

    /// Seeds the random generator of each room; the same seed gives the same numbers. Default: a
    /// random seed for each room.
    #[must_use]
    pub const fn seed(mut self, seed: Option<u64>) -> Self {
        self.settings.seed = seed;
        self
    }

    /// The module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    pub(crate) fn service(
        &self,
        room_id: &str,
        context: impl Context + 'static,
    ) -> anyhow::Result<Service> {
        Service::new(room_id, &self.module, self.settings, context)
    }
}
