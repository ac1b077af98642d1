//! Intended differences: demonstrates each fault or limit of the JIT host that this crate does not
//! share.

use crate::{
    jit::{Jit02, Jit04},
    runtime::{Event, Recipient, Recorder, RoomOutput, Runtime},
    wasmi_host::WasmiHost,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Arc,
};

/// A guest, and the expected outcome of running it in each host.
pub struct Difference {
    title: &'static str,
    jit: (&'static str, &'static dyn Runtime),
    wat: String,
    theirs: Expected,
    ours: Expected,
}

/// The outcome of a run.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Panicked,
    /// The last event was handled; all outputs.
    Open(Vec<RoomOutput>),
    Closed(String),
}

#[derive(Debug)]
enum Expected {
    Refused,
    Panics,
    /// The room stays open and has sent these outputs.
    Sends(Vec<RoomOutput>),
    /// The room is closed with a fault that contains this text.
    Closes(&'static str),
}

impl Difference {
    /// Runs both hosts; returns the text to print, and whether the outcomes are as expected.
    pub fn check(&self) -> (String, bool) {
        let wasm = wat::parse_str(&self.wat).expect("the guests are valid");
        let theirs = outcome(self.jit.1, &wasm);
        let ours = outcome(&WasmiHost::room(), &wasm);
        let is_expected = self.theirs.matches(&theirs) && self.ours.matches(&ours);
        let text = format!(
            "- {}\n    {}: {theirs}\n    this crate: {ours}",
            self.title, self.jit.0
        );
        (text, is_expected)
    }
}

impl Expected {
    fn matches(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Refused, Outcome::Refused) | (Self::Panics, Outcome::Panicked) => true,
            (Self::Sends(expected), Outcome::Open(outputs)) => expected == outputs,
            (Self::Closes(expected), Outcome::Closed(fault)) => fault.contains(expected),
            _ => false,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("refuses the module"),
            Self::Panicked => f.write_str("panics"),
            Self::Open(outputs) => {
                write!(f, "stays open, having sent {} messages", outputs.len())?;
                if let Some(last) = outputs.last() {
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
    let recorder = Arc::new(Recorder::default());
    catch_panic(|| {
        let Ok(mut room) = runtime
            .load(wasm)
            .and_then(|module| module.open("lobby", recorder.clone()))
        else {
            return Outcome::Refused;
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
            None => Outcome::Open(recorder.take()),
        }
    })
    .unwrap_or(Outcome::Panicked)
}

/// Runs a function that may panic, without printing the message.
fn catch_panic<R>(run: impl FnOnce() -> R) -> Option<R> {
    // One at a time: the hook is global.
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
    let to_1 = |text: &str| RoomOutput::Text(Recipient::Client(1), text.into());
    let to_all_but = |client| {
        let to = Recipient::EveryoneExcept(client);
        ["one", "two"]
            .map(|text| RoomOutput::Text(to, text.into()))
            .to_vec()
    };
    let jit_0_2 = ("the JIT host 0.2.9", &Jit02 as &dyn Runtime);
    let jit_0_4 = ("the JIT host 0.4.4", &Jit04 as &dyn Runtime);
    let send = "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    vec![
        Difference {
            title: "A guest sends bytes outside its memory.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const 65000) (i32.const 1000))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest sends bytes that end beyond 4 GiB.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const -16) (i32.const 32))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest of ABI 0.4 sends bytes outside its memory.",
            jit: jit_0_4,
            wat: guest_0_4("(call $send (i32.const 65000) (i32.const 1000))"),
            theirs: Expected::Panics,
            ours: Expected::Closes("not within its memory"),
        },
        Difference {
            title: "A guest of ABI 0.4 sends bytes that do not decode.",
            jit: jit_0_4,
            wat: guest_0_4(
                "(i32.store (i32.const 16) (i32.const 77)) (call $send (i32.const 16) (i32.const 4))",
            ),
            theirs: Expected::Panics,
            ours: Expected::Closes("bytes that do not decode"),
        },
        Difference {
            title: "A guest of ABI 0.4 traps.",
            jit: jit_0_4,
            wat: guest_0_4("(unreachable)"),
            theirs: Expected::Panics,
            ours: Expected::Closes("unreachable"),
        },
        Difference {
            title: "A guest of ABI 0.2 traps on the first message and echoes the second.",
            jit: jit_0_2,
            wat: guest(&format!(
                "(global.set $events (i32.add (global.get $events) (i32.const 1)))
                 (if (i32.eq (global.get $events) (i32.const 1)) (then (unreachable)))
                 {send}"
            )),
            theirs: Expected::Sends(vec![to_1("two")]),
            ours: Expected::Closes("unreachable"),
        },
        Difference {
            title: "A guest sends a text that is not UTF-8, then echoes.",
            jit: jit_0_2,
            wat: guest(&format!(
                "(global.set $events (i32.add (global.get $events) (i32.const 1)))
                 (if (i32.eq (global.get $events) (i32.const 1))
                   (then (i32.store8 (local.get 1) (i32.const 0xff))))
                 {send}"
            )),
            theirs: Expected::Sends(vec![to_1("two")]),
            ours: Expected::Closes("not UTF-8"),
        },
        Difference {
            title: "A guest sends to the recipient i32::MIN: a difference to a debug build only.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 0x80000000) (local.get 1) (local.get 2))"),
            // The negation wraps, or panics with overflow checks.
            theirs: match cfg!(debug_assertions) {
                true => Expected::Panics,
                false => Expected::Sends(to_all_but(1 << 31)),
            },
            ours: Expected::Sends(to_all_but(1 << 31)),
        },
        Difference {
            title: "A guest's allocator returns null; the guest stores `keep` at address 0 and sends it.",
            jit: jit_0_2,
            wat: guest_with(
                "(data (i32.const 0) \"keep\")",
                "(i32.const 0)",
                "(call $send_message (i32.const 1) (i32.const 0) (i32.const 4))",
            ),
            theirs: Expected::Sends(vec![to_1("oneb"), to_1("twob")]),
            ours: Expected::Sends(vec![to_1("keep"), to_1("keep")]),
        },
        Difference {
            title: "A guest's allocator later returns a pointer outside its memory.",
            jit: jit_0_2,
            wat: guest_with(
                "",
                "(if (result i32) (i32.eqz (global.get $opened))
                                   (then (global.set $opened (i32.const 1)) (i32.const 1024))
                                   (else (i32.const 0x7fff0000)))",
                send,
            ),
            theirs: Expected::Sends(vec![]),
            ours: Expected::Closes("its allocator returned"),
        },
        Difference {
            title: "A handwritten guest does not export its version.",
            jit: jit_0_2,
            wat: guest(send).replace("(global (export \"JAMSOCKET", "(global (export \"NO_"),
            theirs: Expected::Refused,
            ours: Expected::Sends(vec![to_1("one"), to_1("two")]),
        },
        Difference {
            title: "A guest lacks an export that it does not need: no difference, both refuse it.",
            jit: jit_0_2,
            wat: guest(send).replace("(func (export \"timer\"))", ""),
            theirs: Expected::Refused,
            ours: Expected::Refused,
        },
        Difference {
            title: "A guest is a WASI reactor whose constructor `_initialize` must run first.",
            jit: jit_0_2,
            wat: guest("(call $send_message (i32.const 1) (i32.const 64) (global.get $opened))").replace(
                ";; more",
                "(func (export \"_initialize\") (global.set $opened (i32.const 5)))
                 (data (i32.const 64) \"ready\")",
            ),
            theirs: Expected::Sends(vec![to_1(""), to_1("")]),
            ours: Expected::Sends(vec![to_1("ready"), to_1("ready")]),
        },
        Difference {
            title: "A guest exits.",
            jit: jit_0_2,
            wat: guest("(call $exit (i32.const 3))").replace(
                ";; imports",
                "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))",
            ),
            theirs: Expected::Sends(vec![]),
            ours: Expected::Closes("exited with code 3"),
        },
        Difference {
            title: "A guest has a page size of one byte.",
            jit: jit_0_2,
            wat: guest(send)
                .replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 4096 (pagesize 1))"),
            theirs: Expected::Refused,
            ours: Expected::Sends(vec![to_1("one"), to_1("two")]),
        },
        Difference {
            title: "A guest divides zero by zero and sends the sign of the NaN.",
            jit: jit_0_2,
            wat: guest(
                "(local $zero f64)
                 (i32.store8 (i32.const 64) (select (i32.const 45) (i32.const 43)
                   (i64.lt_s (i64.reinterpret_f64 (f64.div (local.get $zero) (local.get $zero))) (i64.const 0))))
                 (call $send_message (i32.const 1) (i32.const 64) (i32.const 1))",
            ),
            // The processor's NaN; on Arm it has no sign.
            theirs: match cfg!(target_arch = "x86_64") {
                true => Expected::Sends(vec![to_1("-"), to_1("-")]),
                false => Expected::Sends(vec![to_1("+"), to_1("+")]),
            },
            ours: Expected::Sends(vec![to_1("+"), to_1("+")]),
        },
    ]
}

/// A guest of ABI 0.2 that runs `message` for each text.
pub(super) fn guest(message: &str) -> String {
    guest_with("", "(i32.const 1024)", message)
}

pub(super) fn guest_with(data: &str, malloc: &str, message: &str) -> String {
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

/// A guest of ABI 0.4 that runs `recv` for each message, whose tag is 3.
pub(super) fn guest_0_4(recv: &str) -> String {
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
