//! Where the two differ on purpose: each fault or limit of the JIT host that can be shown, shown.

use crate::{
    jit::{Jit02, Jit04},
    runtime::{Event, Notebook, Recipient, Runtime, Said},
    wasmi_host::WasmiHost,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Arc,
};

/// A guest, what happens to it, and what the two hosts make of it.
pub struct Difference {
    title: &'static str,
    jit: (&'static str, &'static dyn Runtime),
    wat: String,
    theirs: Expected,
    ours: Expected,
}

/// What a run led to, in the words that it is compared by.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    NotOpened,
    Panicked,
    /// The last event was handled, with these answers in all.
    Lives(Vec<Said>),
    Closed(String),
}

#[derive(Debug)]
enum Expected {
    NotOpened,
    Panics,
    /// The room goes on, and has said this.
    Says(Vec<Said>),
    /// The room is closed with a fault that says this.
    Closes(&'static str),
}

impl Difference {
    /// A line to print, and whether both hosts did what was expected.
    pub fn show(&self) -> (String, bool) {
        let wasm = wat::parse_str(&self.wat).expect("the guests are valid");
        let theirs = outcome(self.jit.1, &wasm);
        let ours = outcome(&WasmiHost::room(), &wasm);
        let is_expected = self.theirs.fits(&theirs) && self.ours.fits(&ours);
        let text = format!(
            "- {}\n    {}: {theirs}\n    this crate: {ours}",
            self.title, self.jit.0
        );
        (text, is_expected)
    }
}

impl Expected {
    fn fits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::NotOpened, Outcome::NotOpened) | (Self::Panics, Outcome::Panicked) => true,
            (Self::Says(expected), Outcome::Lives(said)) => expected == said,
            (Self::Closes(expected), Outcome::Closed(fault)) => fault.contains(expected),
            _ => false,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOpened => f.write_str("refuses the module"),
            Self::Panicked => f.write_str("panics"),
            Self::Lives(said) => {
                write!(f, "goes on, having sent {} messages", said.len())?;
                if let Some(last) = said.last() {
                    write!(f, ", the last {last:?}")?;
                }
                Ok(())
            }
            Self::Closed(fault) => write!(f, "closes the room: {fault}"),
        }
    }
}

/// A client connects and sends two texts.
fn outcome(runtime: &dyn Runtime, wasm: &[u8]) -> Outcome {
    let notebook = Arc::new(Notebook::default());
    quietly(|| {
        let Ok(mut room) = runtime
            .load(wasm)
            .and_then(|module| module.open("lobby", notebook.clone()))
        else {
            return Outcome::NotOpened;
        };
        for event in [
            Event::Connect(1),
            Event::text(1, "one"),
            Event::text(1, "two"),
        ] {
            room.handle(event);
        }
        match room.fault() {
            Some(fault) => Outcome::Closed(fault),
            None => Outcome::Lives(notebook.take()),
        }
    })
    .unwrap_or(Outcome::Panicked)
}

/// Runs what may panic, without the panic's message.
fn quietly<R>(run: impl FnOnce() -> R) -> Option<R> {
    // One at a time: the hook is the process's.
    static HOOK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = HOOK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(run)).ok();
    set_hook(hook);
    result
}

pub fn all() -> Vec<Difference> {
    let to_1 = |text: &str| Said::Text(Recipient::Client(1), text.into());
    let jit_0_2 = ("the JIT host 0.2.9", &Jit02 as &dyn Runtime);
    let jit_0_4 = ("the JIT host 0.4.4", &Jit04 as &dyn Runtime);
    let send = "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    vec![
        Difference {
            title: "A guest sends bytes that are not within its memory.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const 65000) (i32.const 1000))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest sends bytes whose end is beyond 4 GiB.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const -16) (i32.const 32))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest of ABI 0.4 sends bytes that are not within its memory.",
            jit: jit_0_4,
            wat: guest_0_4("(call $send (i32.const 65000) (i32.const 1000))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest of ABI 0.4 sends bytes that are no message.",
            jit: jit_0_4,
            wat: guest_0_4(
                "(i32.store (i32.const 16) (i32.const 77)) (call $send (i32.const 16) (i32.const 4))",
            ),
            theirs: Expected::Panics,
            ours: Expected::Closes("bytes that are no message"),
        },
        Difference {
            title: "A guest of ABI 0.4 traps.",
            jit: jit_0_4,
            wat: guest_0_4("(unreachable)"),
            theirs: Expected::Panics,
            ours: Expected::Closes("unreachable"),
        },
        Difference {
            title: "A guest of ABI 0.2 traps at the first message and would echo the second.",
            jit: jit_0_2,
            wat: guest(&format!(
                "(global.set $events (i32.add (global.get $events) (i32.const 1)))
                 (if (i32.eq (global.get $events) (i32.const 1)) (then (unreachable)))
                 {send}"
            )),
            theirs: Expected::Says(vec![to_1("two")]),
            ours: Expected::Closes("unreachable"),
        },
        Difference {
            title: "A guest sends a text that is not UTF-8, and then echoes.",
            jit: jit_0_2,
            wat: guest(&format!(
                "(global.set $events (i32.add (global.get $events) (i32.const 1)))
                 (if (i32.eq (global.get $events) (i32.const 1))
                   (then (i32.store8 (local.get 1) (i32.const 0xff))))
                 {send}"
            )),
            theirs: Expected::Says(vec![to_1("two")]),
            ours: Expected::Closes("not UTF-8"),
        },
        Difference {
            title: "A guest sends to the recipient i32::MIN, which names nobody.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 0x80000000) (local.get 1) (local.get 2))"),
            // The negation wraps where overflow is not checked, and panics where it is.
            theirs: if cfg!(debug_assertions) {
                Expected::Panics
            } else {
                let to = Recipient::EverybodyBut(1 << 31);
                Expected::Says(["one", "two"].map(|text| Said::Text(to, text.into())).to_vec())
            },
            ours: Expected::Closes("recipient"),
        },
        Difference {
            title: "A guest's allocator answers null; the guest keeps `keep` at address 0 and sends it.",
            jit: jit_0_2,
            wat: guest_with(
                "(data (i32.const 0) \"keep\")",
                "(i32.const 0)",
                "(call $send_message (i32.const 1) (i32.const 0) (i32.const 4))",
            ),
            theirs: Expected::Says(vec![to_1("oneb"), to_1("twob")]),
            ours: Expected::Says(vec![to_1("keep"), to_1("keep")]),
        },
        Difference {
            title: "A guest's allocator answers a pointer beyond its memory.",
            jit: jit_0_2,
            wat: guest_with(
                "",
                "(if (result i32) (i32.eqz (global.get $opened))
                                   (then (global.set $opened (i32.const 1)) (i32.const 1024))
                                   (else (i32.const 0x7fff0000)))",
                send,
            ),
            theirs: Expected::Says(vec![]),
            ours: Expected::Says(vec![to_1("one"), to_1("two")]),
        },
        Difference {
            title: "A guest written by hand does not export its version.",
            jit: jit_0_2,
            wat: guest(send).replace("(global (export \"JAMSOCKET", "(global (export \"NO_"),
            theirs: Expected::NotOpened,
            ours: Expected::Says(vec![to_1("one"), to_1("two")]),
        },
        Difference {
            title: "A guest leaves out the exports that it needs not: nothing differs, both refuse it.",
            jit: jit_0_2,
            wat: guest(send).replace("(func (export \"timer\"))", ""),
            theirs: Expected::NotOpened,
            ours: Expected::NotOpened,
        },
        Difference {
            title: "A guest is a WASI reactor, whose constructor `_initialize` must run first.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const 64) (global.get $opened))").replace(
                ";; more",
                "(func (export \"_initialize\") (global.set $opened (i32.const 5)))
                 (data (i32.const 64) \"ready\")",
            ),
            theirs: Expected::Says(vec![to_1(""), to_1("")]),
            ours: Expected::Says(vec![to_1("ready"), to_1("ready")]),
        },
        Difference {
            title: "A guest exits.",
            jit: jit_0_2,
            wat: guest("(call $exit (i32.const 3))").replace(
                ";; imports",
                "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))",
            ),
            theirs: Expected::Says(vec![]),
            ours: Expected::Closes("exited with code 3"),
        },
        Difference {
            title: "A guest has a page size of one byte.",
            jit: jit_0_2,
            wat: guest(send)
                .replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 4096 (pagesize 1))"),
            theirs: Expected::NotOpened,
            ours: Expected::Says(vec![to_1("one"), to_1("two")]),
        },
        Difference {
            title: "A guest divides zero by zero, and tells the sign of what comes out.",
            jit: jit_0_2,
            wat: guest(
                "(local $zero f64)
                 (i32.store8 (i32.const 64) (select (i32.const 45) (i32.const 43)
                   (i64.lt_s (i64.reinterpret_f64 (f64.div (local.get $zero) (local.get $zero))) (i64.const 0))))
                 (call $send_message (i32.const 1) (i32.const 64) (i32.const 1))",
            ),
            // What the processor leaves; those of Arm leave no sign.
            theirs: match cfg!(target_arch = "x86_64") {
                true => Expected::Says(vec![to_1("-"), to_1("-")]),
                false => Expected::Says(vec![to_1("+"), to_1("+")]),
            },
            ours: Expected::Says(vec![to_1("+"), to_1("+")]),
        },
        Difference {
            title: "A guest counts how often its allocator is called (this crate keeps one buffer).",
            jit: jit_0_2,
            wat: guest_with(
                "",
                "(i32.store8 (i32.const 64) (i32.add (i32.load8_u (i32.const 64)) (i32.const 1)))
                 (if (i32.eqz (i32.load8_u (i32.const 65))) (then
                   (i32.store8 (i32.const 65) (i32.const 1)) (i32.store8 (i32.const 64) (i32.const 49))))
                 (i32.const 1024)",
                "(call $send_message (i32.const 1) (i32.const 64) (i32.const 1))",
            ),
            theirs: Expected::Says(vec![to_1("2"), to_1("3")]),
            ours: Expected::Says(vec![to_1("1"), to_1("1")]),
        },
    ]
}

/// A guest of ABI 0.2 that does this with a text.
fn guest(message: &str) -> String {
    guest_with("", "(i32.const 1024)", message)
}

fn guest_with(data: &str, malloc: &str, message: &str) -> String {
    format!(
        r#"(module
          ;; imports
          (import "env" "send_message" (func $send_message (param i32 i32 i32)))
          (memory (export "memory") 1)
          {data}
          (data (i32.const 2048) "\01\00\00\00\00\00\00\00")
          (global (export "JAMSOCKET_API_VERSION") i32 (i32.const 2048))
          (global (export "JAMSOCKET_API_PROTOCOL") i32 (i32.const 2052))
          (global $events (mut i32) (i32.const 0))
          (global $opened (mut i32) (i32.const 0))
          ;; more
          (func (export "jam_malloc") (param i32) (result i32) {malloc})
          (func (export "jam_free") (param i32 i32))
          (func (export "initialize") (param i32 i32))
          (func (export "connect") (param i32))
          (func (export "disconnect") (param i32))
          (func (export "timer"))
          (func (export "message") (param i32 i32 i32) {message})
          (func (export "binary") (param i32 i32 i32)))"#
    )
}

/// A guest of ABI 0.4 that does this with a message, whose tag is 3.
fn guest_0_4(recv: &str) -> String {
    format!(
        r#"(module
          (import "env" "stateroom_send" (func $send (param i32 i32)))
          (memory (export "memory") 1)
          (data (i32.const 2048) "\01\00\00\00\00\00\00\00")
          (global (export "STATEROOM_API_VERSION") i32 (i32.const 2048))
          (global (export "STATEROOM_API_PROTOCOL") i32 (i32.const 2052))
          (func (export "stateroom_malloc") (param i32) (result i32) (i32.const 1024))
          (func (export "stateroom_free") (param i32 i32))
          (func (export "stateroom_recv") (param i32 i32)
            (if (i32.eq (i32.load (local.get 0)) (i32.const 3)) (then {recv}))))"#
    )
}
