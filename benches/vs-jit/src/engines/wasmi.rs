//! wasmi alone: without fuel, and without this project's host.

use super::{Guest, MinimalRoom, payload, recipient};
use crate::runtime::{Module, OutputSink, Room, Runtime};
use anyhow::{Context, Result};
use std::sync::Arc;
use wasmi::{Caller, Engine, Linker, Memory, Store, TypedFunc};

pub struct Wasmi;

struct Loaded {
    module: wasmi::Module,
    linker: Linker<State>,
}

struct State {
    sink: Arc<dyn OutputSink>,
    memory: Option<Memory>,
}

struct Instance {
    store: Store<State>,
    memory: Memory,
    malloc: TypedFunc<u32, u32>,
    free: TypedFunc<(u32, u32), ()>,
    initialize: TypedFunc<(u32, u32), ()>,
    connect: TypedFunc<u32, ()>,
    disconnect: TypedFunc<u32, ()>,
    timer: TypedFunc<(), ()>,
    message: TypedFunc<(u32, u32, u32), ()>,
    binary: TypedFunc<(u32, u32, u32), ()>,
}

impl Runtime for Wasmi {
    fn load(&self, wasm: &[u8]) -> Result<Box<dyn Module>> {
        let engine = Engine::default();
        let module = wasmi::Module::new(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap(
            "env",
            "send_message",
            |caller: Caller<'_, State>, to: i32, ptr: u32, len: u32| {
                send(&caller, to, ptr, len, true);
            },
        )?;
        linker.func_wrap(
            "env",
            "send_binary",
            |caller: Caller<'_, State>, to: i32, ptr: u32, len: u32| {
                send(&caller, to, ptr, len, false);
            },
        )?;
        linker.func_wrap("env", "set_timer", |caller: Caller<'_, State>, ms: u32| {
            caller.data().sink.timer((ms > 0).then_some(ms));
        })?;
        Ok(Box::new(Loaded { module, linker }))
    }
}

fn send(caller: &Caller<'_, State>, to: i32, ptr: u32, len: u32, is_text: bool) {
    let state = caller.data();
    let memory = state.memory.expect("known once instantiated").data(caller);
    state
        .sink
        .message(recipient(to), payload(memory, ptr, len, is_text));
}

impl Module for Loaded {
    fn open(&self, id: &str, sink: Arc<dyn OutputSink>) -> Result<Box<dyn Room>> {
        let mut store = Store::new(self.module.engine(), State { sink, memory: None });
        let instance = self
            .linker
            .instantiate_and_start(&mut store, &self.module)?;
        let memory = instance.get_memory(&store, "memory").context("no memory")?;
        store.data_mut().memory = Some(memory);
        let guest = Instance {
            memory,
            malloc: instance.get_typed_func(&store, "jam_malloc")?,
            free: instance.get_typed_func(&store, "jam_free")?,
            initialize: instance.get_typed_func(&store, "initialize")?,
            connect: instance.get_typed_func(&store, "connect")?,
            disconnect: instance.get_typed_func(&store, "disconnect")?,
            timer: instance.get_typed_func(&store, "timer")?,
            message: instance.get_typed_func(&store, "message")?,
            binary: instance.get_typed_func(&store, "binary")?,
            store,
        };
        Ok(Box::new(MinimalRoom::open(guest, id)?))
    }
}

impl Guest for Instance {
    fn malloc(&mut self, len: u32) -> Result<u32> {
        Ok(self.malloc.call(&mut self.store, len)?)
    }

    fn free(&mut self, ptr: u32, len: u32) -> Result<()> {
        Ok(self.free.call(&mut self.store, (ptr, len))?)
    }

    fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<()> {
        self.memory
            .write(&mut self.store, ptr as usize, bytes)
            .map_err(wasmi::Error::from)?;
        Ok(())
    }

    fn initialize(&mut self, ptr: u32, len: u32) -> Result<()> {
        Ok(self.initialize.call(&mut self.store, (ptr, len))?)
    }

    fn connect(&mut self, client: u32) -> Result<()> {
        Ok(self.connect.call(&mut self.store, client)?)
    }

    fn disconnect(&mut self, client: u32) -> Result<()> {
        Ok(self.disconnect.call(&mut self.store, client)?)
    }

    fn timer(&mut self) -> Result<()> {
        Ok(self.timer.call(&mut self.store, ())?)
    }

    fn message(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        Ok(self.message.call(&mut self.store, (client, ptr, len))?)
    }

    fn binary(&mut self, client: u32, ptr: u32, len: u32) -> Result<()> {
        Ok(self.binary.call(&mut self.store, (client, ptr, len))?)
    }
}
