//! wasm3, an interpreter in C, through its published crate. It compiles each function on first
//! lookup or call.

use super::{Guest, MinimalRoom, payload, recipient};
use crate::runtime::{Module, OutputSink, Room, Runtime};
use anyhow::{Context, Result, anyhow};
use std::{collections::HashMap, ptr::NonNull, sync::Arc};
use wasm3::{CallContext, Environment, Function};

pub struct Wasm3;

/// A parsed module can be instantiated once, so each room parses again.
struct Loaded {
    wasm: Box<[u8]>,
    /// Exported functions by name. wasm3 keeps one name for each function, but compilers export one
    /// empty function under several.
    exports: HashMap<String, usize>,
}

impl Loaded {
    fn index(&self, name: &str) -> Result<usize> {
        self.exports
            .get(name)
            .copied()
            .with_context(|| format!("{name} is not exported"))
    }
}

struct Instance {
    /// Before `runtime`, to which it refers: fields are dropped in this order.
    exports: Exports,
    runtime: Owned,
}

/// An owned runtime at a stable address, to which functions keep references.
struct Owned(NonNull<wasm3::Runtime>);

struct Exports {
    malloc: Function<'static, u32, u32>,
    free: Function<'static, (u32, u32), ()>,
    initialize: Function<'static, (u32, u32), ()>,
    connect: Function<'static, u32, ()>,
    disconnect: Function<'static, u32, ()>,
    timer: Function<'static, (), ()>,
    message: Function<'static, (u32, u32, u32), ()>,
    binary: Function<'static, (u32, u32, u32), ()>,
}

impl Runtime for Wasm3 {
    fn load(&self, wasm: &[u8]) -> Result<Box<dyn Module>> {
        let environment = Environment::new().map_err(error)?;
        environment.parse_module(wasm).map_err(error)?;
        let mut exports = HashMap::new();
        for payload in wasmparser::Parser::new(0).parse_all(wasm) {
            let wasmparser::Payload::ExportSection(section) = payload? else {
                continue;
            };
            for export in section {
                let export = export?;
                exports.insert(export.name.to_owned(), export.index as usize);
            }
        }
        Ok(Box::new(Loaded {
            wasm: wasm.into(),
            exports,
        }))
    }
}

impl Module for Loaded {
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> Result<Box<dyn Room>> {
        const STACK_SLOTS: u32 = 64 << 10;
        let environment = Environment::new().map_err(error)?;
        let owned = Box::new(environment.create_runtime(STACK_SLOTS).map_err(error)?);
        let runtime = Owned(NonNull::from(Box::leak(owned)));
        // SAFETY: the runtime does not move until `Owned` is dropped, which is after the functions,
        // the only holders of the reference.
        let reference: &'static wasm3::Runtime = unsafe { runtime.0.as_ref() };
        let mut module = reference
            .parse_and_load_module(&*self.wasm)
            .map_err(error)?;
        for (name, is_text) in [("send_message", true), ("send_binary", false)] {
            let sink = sink.clone();
            let linked = module.link_closure(
                "env",
                name,
                move |context: CallContext<'_>, (to, ptr, len)| {
                    // SAFETY: nothing calls into the guest while the slice lives.
                    let memory = unsafe { &*context.memory() };
                    sink.message(recipient(to), payload(memory, ptr, len, is_text));
                    Ok(())
                },
            );
            ignore_missing(linked)?;
        }
        ignore_missing(module.link_closure(
            "env",
            "set_timer",
            move |_: CallContext<'_>, ms: u32| {
                sink.timer((ms > 0).then_some(ms));
                Ok(())
            },
        ))?;
        let exports = Exports {
            malloc: module.function(self.index("jam_malloc")?).map_err(error)?,
            free: module.function(self.index("jam_free")?).map_err(error)?,
            initialize: module.function(self.index("initialize")?).map_err(error)?,
            connect: module.function(self.index("connect")?).map_err(error)?,
            disconnect: module.function(self.index("disconnect")?).map_err(error)?,
            timer: module.function(self.index("timer")?).map_err(error)?,
            message: module.function(self.index("message")?).map_err(error)?,
            binary: module.function(self.index("binary")?).map_err(error)?,
        };
        Ok(Box::new(MinimalRoom::open(
            Instance { exports, runtime },
            id,
        )?))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the pointer is from `Box::leak`, and is freed once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Guests do not import functions that they do not use.
fn ignore_missing(linked: wasm3::error::Result<()>) -> Result<()> {
    match linked {
        Err(wasm3::error::Error::FunctionNotFound) => Ok(()),
        other => other.map_err(error),
    }
}

/// Its errors are not `Send`, which `anyhow` requires.
fn error(error: wasm3::error::Error) -> anyhow::Error {
    anyhow!("{error}")
}

impl Guest for Instance {
    fn malloc(&mut self, len: u32) -> Result<u32> {
        self.exports.malloc.call(len).map_err(error)
    }

    fn free(&mut self, ptr: u32, len: u32) -> Result<()> {
        self.exports.free.call(ptr, len).map_err(error)
    }

    fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<()> {
        // SAFETY: nothing calls into the guest while the slice lives.
        let memory = unsafe { &mut *self.runtime.0.as_ref().memory_mut() };
        memory[ptr as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn initialize(&mut self, ptr: u32, len: u32) -> Result<()> {
        self.exports.initialize.call(ptr, len).map_err(error)
    }

    fn connect(&mut self, client: u32) -> Result<()> {
        self.exports.connect.call(client).map_err(error)
    }

    fn disconnect(&mut self, client: u32) -> Result<()> {
        self.exports.disconnect.call(client).map_err(error)
    }

    fn timer(&mut self) -> Result<()> {
        self.exports.timer.call().map_err(error)
    }

    fn message(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        self.exports.message.call(client, ptr, len).map_err(error)
    }

    fn binary(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        self.exports.binary.call(client, ptr, len).map_err(error)
    }
}
