//! The simulated guest: its operations and its module.

use crate::support::{ENV, Random, assemble, guest_0_2, limits};
use stateroom_wasmi_host::{LoadOptions, Module, PayloadBuffer};

pub const PAGE: usize = 65_536;
pub const MAX_PAGES: u32 = 4;
pub const MAX_MESSAGES: usize = 40;
pub const MAX_WAITING: usize = 6;
pub const MAX_CLIENTS: usize = 5;
pub const FUEL_PER_EVENT: u64 = 40_000;
/// A room with an id of this length fails to initialise in odd milliseconds.
pub const FLAKY_ID_BYTES: u32 = 8;

/// An operation in a binary message.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Send {
        to: i32,
        number: u32,
    },
    SetTimer {
        ms: u32,
    },
    Spin {
        rounds: u32,
    },
    /// Sends the previous size of its memory.
    Grow {
        pages: u32,
    },
    Flood {
        times: u32,
        number: u32,
    },
    Trap,
    LoopForever,
    Overflow,
    /// From now on, events whose tag is in this bit set fail after sending their header.
    Arm {
        tags: u32,
    },
    /// Writes a number to memory and sends the previous one.
    Swap {
        at: u32,
        number: u32,
    },
    /// Sends eight random bytes.
    Draw,
}

/// The kind of an event, as in its header.
#[derive(Clone, Copy, Debug)]
pub enum Tag {
    Init,
    Connect,
    Disconnect,
    Binary,
    Text,
    Timer,
}

impl Op {
    pub fn random(random: &mut Random) -> Self {
        let number = random.next() as u32;
        match random.below(400) {
            0..3 => Self::Trap,
            3 => Self::LoopForever,
            4 => Self::Overflow,
            5..15 => Self::Arm {
                tags: any_tags(random),
            },
            15..19 => Self::Flood {
                times: 1 + random.below(MAX_MESSAGES) as u32,
                number,
            },
            19..40 => Self::Grow {
                pages: random.below(3) as u32,
            },
            40..100 => Self::Spin {
                rounds: random.below(200) as u32,
            },
            100..200 => Self::SetTimer {
                ms: random.below(40) as u32,
            },
            200..260 => Self::Swap {
                at: any_address(random),
                number: number * random.below(2) as u32,
            },
            260..290 => Self::Draw,
            _ => Self::Send {
                to: random.below(11) as i32 - 5,
                number,
            },
        }
    }

    /// The opcode and its two operands.
    pub const fn words(self) -> [u32; 3] {
        match self {
            Self::Send { to, number } => [0, to.cast_unsigned(), number],
            Self::SetTimer { ms } => [1, ms, 0],
            Self::Spin { rounds } => [2, rounds, 0],
            Self::Grow { pages } => [3, pages, 0],
            Self::Flood { times, number } => [4, times, number],
            Self::Trap => [5, 0, 0],
            Self::LoopForever => [6, 0, 0],
            Self::Overflow => [7, 0, 0],
            Self::Arm { tags } => [8, tags, 0],
            Self::Swap { at, number } => [9, at, number],
            Self::Draw => [10, 0, 0],
        }
    }
}

/// Mostly none, so that a guest with rollback does not keep failing.
fn any_tags(random: &mut Random) -> u32 {
    // Not `Binary`, which is what changes the set.
    let tags = [
        Tag::Connect,
        Tag::Connect,
        Tag::Disconnect,
        Tag::Text,
        Tag::Timer,
        Tag::Timer,
    ];
    tags.get(random.below(10)).map_or(0, |tag| 1 << *tag as u32)
}

/// An address above the guest's own data, in any page but mostly the first. There are few, so that
/// they are reused.
fn any_address(random: &mut Random) -> u32 {
    let page = random.below(16).saturating_sub(16 - MAX_PAGES as usize);
    let page_start = (page * PAGE) as u32;
    page_start + [8192, 8196, 20_000, 40_000, 65_528, 65_532][random.below(6)]
}

/// A guest that sends a header for each event (its kind, its `now` and a digest of the events
/// before) and then runs the operations in it.
pub fn module(fuel_per_slice: u64, payload_buffer: PayloadBuffer) -> Module {
    let limits = limits(|limits| {
        limits.max_fuel_per_event = Some(FUEL_PER_EVENT);
        limits.fuel_per_slice = fuel_per_slice;
        limits.max_memory_bytes = MAX_PAGES as usize * PAGE;
        limits.max_outbox_messages = MAX_MESSAGES;
        limits.max_inbox_events = MAX_WAITING;
        limits.max_clients = MAX_CLIENTS;
        limits.max_recursion_depth = 50;
    });
    let options = LoadOptions::new().payload_buffer(payload_buffer);
    #[cfg(feature = "snapshot")]
    let options = options.snapshots(true);
    Module::load_with(&assemble(&text()), &limits, options).expect("the module loads")
}

fn text() -> String {
    let header =
        |tag: Tag, argument: &str| format!("(call $header (i32.const {}) {argument})", tag as u32);
    let client = "(local.get 0)";
    let initialize = header(Tag::Init, "(local.get 1)")
        + &format!(
            "(if (i32.and
                    (i32.eq (local.get 1) (i32.const {FLAKY_ID_BYTES}))
                    (i32.wrap_i64 (i64.div_u (i64.load (i32.const 8)) (i64.const 1000000))))
                (then (unreachable)))"
        );
    let message = header(Tag::Text, client)
        + "(call $send_message (local.get 0) (local.get 1) (local.get 2))";
    let binary = "(local $end i32) (local.set $end (i32.add (local.get 1) (local.get 2)))".to_owned()
        + &header(Tag::Binary, client)
        + "
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get 1) (local.get $end)))
            (call $do (i32.load (local.get 1)) (i32.load offset=4 (local.get 1)) (i32.load offset=8 (local.get 1)))
            (local.set 1 (i32.add (local.get 1) (i32.const 12)))
            (br $next)))";
    guest_0_2(
        &(ENV.to_owned() + WASI),
        &[
            ("initialize", &initialize),
            ("connect", &header(Tag::Connect, client)),
            ("disconnect", &header(Tag::Disconnect, client)),
            ("binary", &binary),
            ("message", &message),
            ("timer", &header(Tag::Timer, "(i32.const 0)")),
        ],
        FUNCTIONS,
    )
}

const WASI: &str = r#"
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;

/// The header is at 0: the tag, the client or the length of the id, `now`, the number of events, and
/// a digest of their tags and clients. Other outputs are at 32, the armed tags at 48, and the
/// allocator's buffer at 4096.
const FUNCTIONS: &str = "
    (global $mixed (mut i32) (i32.const 0))
    (func $header (param $tag i32) (param $argument i32)
        (i32.store (i32.const 0) (local.get $tag))
        (i32.store (i32.const 4) (local.get $argument))
        (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8)))
        (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
        (global.set $mixed (i32.add
            (i32.mul (global.get $mixed) (i32.const 31))
            (i32.add (i32.mul (local.get $tag) (i32.const 7)) (local.get $argument))))
        (i32.store (i32.const 20) (global.get $mixed))
        (call $send_binary (i32.const 0) (i32.const 0) (i32.const 24))
        (if (i32.and (i32.load (i32.const 48)) (i32.shl (i32.const 1) (local.get $tag)))
            (then (unreachable))))
    (func $say (param $to i32) (param $number i32)
        (i32.store (i32.const 32) (local.get $number))
        (call $send_binary (local.get $to) (i32.const 32) (i32.const 4)))
    (func $spin (param i32)
        (loop $next
            (br_if $next (i32.gt_s (local.tee 0 (i32.sub (local.get 0) (i32.const 1))) (i32.const 0)))))
    (func $flood (param i32 i32)
        (loop $next
            (call $say (i32.const 0) (local.get 1))
            (br_if $next (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))
    (func $overflow (call $overflow))
    (func $swap (param $at i32) (param $number i32)
        (local $before i32)
        (local.set $before (i32.load (local.get $at)))
        (i32.store (local.get $at) (local.get $number))
        (call $say (i32.const 0) (local.get $before)))
    (func $do (param $op i32) (param $a i32) (param $b i32)
        (block $10 (block $9 (block $8 (block $7 (block $6 (block $5
            (block $4 (block $3 (block $2 (block $1 (block $0
            (br_table $0 $1 $2 $3 $4 $5 $6 $7 $8 $9 $10 (local.get $op)))
            (return (call $say (local.get $a) (local.get $b))))
            (return (call $set_timer (local.get $a))))
            (return (call $spin (local.get $a))))
            (return (call $say (i32.const 0) (memory.grow (local.get $a)))))
            (return (call $flood (local.get $a) (local.get $b))))
            (unreachable))
            (loop (br 0)))
            (return (call $overflow)))
            (return (i32.store (i32.const 48) (local.get $a))))
            (return (call $swap (local.get $a) (local.get $b))))
        (drop (call $random (i32.const 32) (i32.const 8)))
        (call $send_binary (i32.const 0) (i32.const 32) (i32.const 8)))";
