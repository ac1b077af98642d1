//! Small guests that must be run as by the published hosts, each for one thing that a host could do
//! otherwise.

use super::{
    compare::SentMessage,
    differences::{guest, guest_0_4, guest_with},
    load_as,
    script::OwnedEvent,
};
use crate::{runtime::Recipient, wasmi_host::WasmiHost};
use anyhow::{Result, ensure};

/// A guest, and what it sends to client 1 in every host.
pub struct Agreement {
    pub title: &'static str,
    wat: String,
    ours: WasmiHost,
    events: Vec<OwnedEvent>,
    texts: &'static [&'static str],
}

impl Agreement {
    /// Client 1 connects and sends two texts.
    fn new(title: &'static str, wat: String, texts: &'static [&'static str]) -> Self {
        let text = |text: &str| OwnedEvent::Text(1, text.to_owned());
        Self {
            title,
            wat,
            ours: WasmiHost::room(),
            events: vec![OwnedEvent::Connect(1), text("one"), text("two")],
            texts,
        }
    }

    /// The published host 0.2.9 goes on after a trap.
    fn goes_on(mut self) -> Self {
        self.ours = self.ours.that_continues();
        self
    }

    fn with_events(mut self, events: Vec<OwnedEvent>) -> Self {
        self.events = events;
        self
    }

    /// Runs all hosts.
    pub fn check(&self) -> Result<()> {
        let wasm = wat::parse_str(&self.wat)?;
        let to = Recipient::Client(1);
        let expected: Vec<SentMessage> = self
            .texts
            .iter()
            .map(|text| SentMessage::Text(to, (*text).to_owned()))
            .collect();
        let in_host = WasmiHost {
            in_host: true,
            ..self.ours
        };
        let ours = [
            ("this crate", self.ours),
            ("this crate, in a host", in_host),
        ];
        for module in load_as(&wasm, &ours)? {
            let mut host = super::HostUnderTest::open(&module)?;
            let mut sent = host.event_result().messages;
            for event in &self.events {
                sent.extend(host.handle(event).messages);
            }
            ensure!(sent == expected, "{}: sent {sent:?}", host.name);
        }
        Ok(())
    }
}

pub fn all() -> Vec<Agreement> {
    let echo = "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    // Counts the calls of an allocator, less the calls that free, and sends the digit.
    let outstanding = |message: &str| {
        guest_with(
            "(data (i32.const 64) \"0\")",
            "(i32.store8 (i32.const 64) (i32.add (i32.load8_u (i32.const 64)) (i32.const 1)))
             (i32.const 1024)",
            &format!("{message} (call $send_message (i32.const 1) (i32.const 64) (i32.const 1))"),
        )
        .replace(
            "(func (export \"jam_free\") (param i32 i32))",
            "(func (export \"jam_free\") (param i32 i32)
               (i32.store8 (i32.const 64) (i32.sub (i32.load8_u (i32.const 64)) (i32.const 1))))",
        )
    };
    let fails_first = |first: &str| {
        format!(
            "(global.set $events (i32.add (global.get $events) (i32.const 1)))
             (if (i32.eq (global.get $events) (i32.const 1)) (then {first}))"
        )
    };
    vec![
        Agreement::new(
            "A guest counts the calls of its allocator.",
            guest_with(
                "(data (i32.const 64) \"0\")",
                "(i32.store8 (i32.const 64) (i32.add (i32.load8_u (i32.const 64)) (i32.const 1)))
                 (i32.const 1024)",
                "(call $send_message (i32.const 1) (i32.const 64) (i32.const 1))",
            ),
            &["2", "3"],
        ),
        Agreement::new(
            "A guest counts the payloads that are allocated and not freed.",
            outstanding(""),
            &["1", "1"],
        ),
        Agreement::new(
            "A guest of ABI 0.4 counts the calls of its allocator: the room's id, and each event.",
            guest_0_4(
                "(i32.store8 (i32.const 40) (global.get $allocated))
                 (call $send (i32.const 16) (i32.const 25))",
            )
            .replace(
                "(result i32) (i32.const 1024))",
                "(result i32)
                   (global.set $allocated (i32.add (global.get $allocated) (i32.const 1)))
                   (i32.const 1024))
                 (global $allocated (mut i32) (i32.const 48))
                 (data (i32.const 16)
                   \"\\00\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\00\\00\\00\\00\")",
            ),
            &["4", "5"],
        ),
        Agreement::new(
            "A guest sends what is at the address that its allocator returned for no bytes.",
            guest_with(
                "(data (i32.const 512) \"here\")",
                "(select (i32.const 1024) (i32.const 512) (local.get 0))",
                "(call $send_message (i32.const 1) (local.get 1) (i32.const 4))",
            ),
            &["here"],
        )
        .with_events(vec![OwnedEvent::Connect(1), OwnedEvent::Text(1, String::new())]),
        Agreement::new(
            "A guest writes its version in `initialize`.",
            guest(echo)
                .replace("(data (i32.const 2048)", "(data (i32.const 3000)")
                .replace(
                    "(func (export \"initialize\") (param i32 i32))",
                    "(func (export \"initialize\") (param i32 i32)
                       (i32.store (i32.const 2048) (i32.const 1)))",
                ),
            &["one", "two"],
        ),
        Agreement::new(
            "A guest imports from ABI 0.2 and also exports all of ABI 0.4.",
            guest(echo).replace(
                ";; more",
                "(global (export \"STATEROOM_API_VERSION\") i32 (i32.const 2048))
                 (global (export \"STATEROOM_API_PROTOCOL\") i32 (i32.const 2052))
                 (func (export \"stateroom_malloc\") (param i32) (result i32) (i32.const 1024))
                 (func (export \"stateroom_free\") (param i32 i32))
                 (func (export \"stateroom_recv\") (param i32 i32))",
            ),
            &["one", "two"],
        ),
        Agreement::new(
            "A guest of ABI 0.4 sets its timer to zero for each message: it fires at once.",
            guest_0_4("(call $send (i32.const 64) (i32.const 8))").replace(
                "(func (export \"stateroom_recv\") (param i32 i32)",
                "(data (i32.const 64) \"\\01\\00\\00\\00\\00\\00\\00\\00\")
                 (data (i32.const 16)
                   \"\\00\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\05\\00\\00\\00\\00\\00\\00\\00fired\")
                 (func (export \"stateroom_recv\") (param i32 i32)
                   (if (i32.eq (i32.load (local.get 0)) (i32.const 4))
                     (then (call $send (i32.const 16) (i32.const 29))))",
            ),
            &["fired", "fired"],
        ),
        Agreement::new(
            "A guest of ABI 0.2 sets its timer to zero for each message: it is off.",
            guest("(call $set_timer (i32.const 1000)) (call $set_timer (i32.const 0))")
                .replace(
                    ";; imports",
                    "(import \"env\" \"set_timer\" (func $set_timer (param i32)))",
                )
                .replace("(func (export \"timer\"))", "(func (export \"timer\") unreachable)"),
            &[],
        ),
        Agreement::new(
            "A guest imports WASI by its first name.",
            guest(
                "(if (i32.eqz (call $random_get (i32.const 4096) (i32.const 8)))
                   (then (call $send_message (local.get 0) (local.get 1) (local.get 2))))",
            )
            .replace(
                ";; imports",
                "(import \"wasi_unstable\" \"random_get\"
                   (func $random_get (param i32 i32) (result i32)))",
            ),
            &["one", "two"],
        ),
        Agreement::new(
            "A guest sleeps by the first name of WASI; only in the published hosts anybody waits.",
            // Relative, by the monotonic clock, for a microsecond; one event with its user data.
            guest(&format!(
                "(i64.store (i32.const 3072) (i64.const 7))
                 (i32.store (i32.const 3096) (i32.const 1))
                 (i64.store (i32.const 3104) (i64.const 1000))
                 (if (call $poll (i32.const 3072) (i32.const 3200) (i32.const 1) (i32.const 3300))
                   (then (unreachable)))
                 (if (i32.ne (i32.load (i32.const 3300)) (i32.const 1)) (then (unreachable)))
                 (if (i64.ne (i64.load (i32.const 3200)) (i64.const 7)) (then (unreachable)))
                 {echo}"
            ))
            .replace(
                ";; imports",
                "(import \"wasi_unstable\" \"poll_oneoff\"
                   (func $poll (param i32 i32 i32 i32) (result i32)))",
            ),
            &["one", "two"],
        ),
        Agreement::new(
            "A guest of ABI 0.4 sends what is in its second memory.",
            guest_0_4(
                "(memory.copy 0 1 (i32.const 16) (i32.const 16) (i32.const 26))
                 (call $send (i32.const 16) (i32.const 26))",
            )
            .replace(
                "(memory (export \"memory\") 1)",
                "(memory (export \"memory\") 1)
                 (memory 1)
                 (data (memory 1) (i32.const 16)
                   \"\\00\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\02\\00\\00\\00\\00\\00\\00\\00hi\")",
            ),
            &["hi", "hi"],
        ),
        Agreement::new(
            "A guest traps on the first text, having sent it: it goes on with the second.",
            guest(&format!("{echo} {}", fails_first("(unreachable)"))),
            &["one", "two"],
        )
        .goes_on(),
        Agreement::new(
            "A guest sends a text that is not UTF-8, and goes on.",
            guest(&format!(
                "{} {echo}",
                fails_first("(i32.store8 (local.get 1) (i32.const 0xff))")
            )),
            &["two"],
        )
        .goes_on(),
        Agreement::new(
            "A guest exits, and goes on.",
            guest(&format!("{} {echo}", fails_first("(call $exit (i32.const 3))"))).replace(
                ";; imports",
                "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))",
            ),
            &["two"],
        )
        .goes_on(),
        Agreement::new(
            "A guest traps on the first text, whose payload is then not freed.",
            outstanding(&fails_first("(unreachable)")),
            &["2"],
        )
        .goes_on(),
    ]
}
