//! tinywasm, without fuel.

use super::{Guest, MinimalRoom, payload, recipient};
use crate::runtime::{Module, OutputSink, Room, Runtime};
use anyhow::{Result, anyhow};
use std::sync::Arc;
use tinywasm::{FuncContext, FunctionTyped, HostFunction, Imports, Memory, ModuleInstance, Store};

pub struct TinyWasm;

struct Instance {
    store: Store,
    memory: Memory,
    malloc: FunctionTyped<i32, i32>,
    free: FunctionTyped<(i32, i32), ()>,
    initialize: FunctionTyped<(i32, i32), ()>,
    connect: FunctionTyped<i32, ()>,
    disconnect: FunctionTyped<i32, ()>,
    timer: FunctionTyped<(), ()>,
    message: FunctionTyped<(i32, i32, i32), ()>,
    binary: FunctionTyped<(i32, i32, i32), ()>,
}

impl Runtime for TinyWasm {
    fn load(&self, wasm: &[u8]) -> Result<Box<dyn Module>> {
        Ok(Box::new(
            tinywasm::parse_bytes(wasm).map_err(|error| anyhow!("{error}"))?,
        ))
    }
}

impl Module for tinywasm::Module {
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> Result<Box<dyn Room>> {
        let mut store = Store::default();
        let mut imports = Imports::new();
        for (name, is_text) in [("send_message", true), ("send_binary", false)] {
            let sink = sink.clone();
            let send = HostFunction::from(
                &mut store,
                move |context: FuncContext<'_>, (to, ptr, len)| {
                    send(&context, &*sink, (to, ptr, len), is_text)
                },
            );
            imports.define("env", name, send);
        }
        let set_timer = HostFunction::from(&mut store, move |_: FuncContext<'_>, ms: i32| {
            sink.timer((ms != 0).then_some(ms.cast_unsigned()));
            Ok(())
        });
        imports.define("env", "set_timer", set_timer);
        let instance =
            ModuleInstance::instantiate(&mut store, self, Some(imports)).map_err(error)?;
        let guest = Instance {
            memory: instance.memory("memory").map_err(error)?,
            malloc: instance.func(&store, "jam_malloc").map_err(error)?,
            free: instance.func(&store, "jam_free").map_err(error)?,
            initialize: instance.func(&store, "initialize").map_err(error)?,
            connect: instance.func(&store, "connect").map_err(error)?,
            disconnect: instance.func(&store, "disconnect").map_err(error)?,
            timer: instance.func(&store, "timer").map_err(error)?,
            message: instance.func(&store, "message").map_err(error)?,
            binary: instance.func(&store, "binary").map_err(error)?,
            store,
        };
        Ok(Box::new(MinimalRoom::open(guest, id)?))
    }
}

/// tinywasm does not lend slices of memory, so payloads are copied.
fn send(
    context: &FuncContext<'_>,
    sink: &dyn OutputSink,
    (to, ptr, len): (i32, i32, i32),
    is_text: bool,
) -> tinywasm::Result<()> {
    let [ptr, len] = [ptr, len].map(|number| number.cast_unsigned() as usize);
    let bytes = context
        .memory("memory")?
        .read_vec(context.store(), ptr, len)?;
    sink.message(
        recipient(to),
        payload(&bytes, 0, bytes.len() as u32, is_text),
    );
    Ok(())
}

/// Its errors are not `Send`, which `anyhow` requires.
fn error(error: tinywasm::Error) -> anyhow::Error {
    anyhow!("{error}")
}

impl Guest for Instance {
    fn malloc(&mut self, len: u32) -> Result<u32> {
        self.malloc
            .call(&mut self.store, len.cast_signed())
            .map(i32::cast_unsigned)
            .map_err(error)
    }

    fn free(&mut self, ptr: u32, len: u32) -> Result<()> {
        self.free
            .call(&mut self.store, (ptr.cast_signed(), len.cast_signed()))
            .map_err(error)
    }

    fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<()> {
        self.memory
            .copy_from_slice(&mut self.store, ptr as usize, bytes)
            .map_err(error)
    }

    fn initialize(&mut self, ptr: u32, len: u32) -> Result<()> {
        self.initialize
            .call(&mut self.store, (ptr.cast_signed(), len.cast_signed()))
            .map_err(error)
    }

    fn connect(&mut self, client: u32) -> Result<()> {
        self.connect
            .call(&mut self.store, client.cast_signed())
            .map_err(error)
    }

    fn disconnect(&mut self, client: u32) -> Result<()> {
        self.disconnect
            .call(&mut self.store, client.cast_signed())
            .map_err(error)
    }

    fn timer(&mut self) -> Result<()> {
        self.timer.call(&mut self.store, ()).map_err(error)
    }

    fn message(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        let arguments = (client.cast_signed(), ptr.cast_signed(), len.cast_signed());
        self.message.call(&mut self.store, arguments).map_err(error)
    }

    fn binary(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        let arguments = (client.cast_signed(), ptr.cast_signed(), len.cast_signed());
        self.binary.call(&mut self.store, arguments).map_err(error)
    }
}
