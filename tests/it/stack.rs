//! No instruction grows the host's stack when it is repeated.
//!
//! The interpreter dispatches instructions by tail calls. If the compiler does not turn one of
//! them into a jump, a guest that repeats the instruction overflows the thread's stack, which
//! aborts the process. So each instruction is repeated here, in a thread with a small stack. The
//! last line that `--nocapture` shows is the guest that failed.

#[cfg(feature = "simd")]
use crate::instructions::vectors;
use crate::{
    instructions::{self, DEFINITIONS, Instruction, control, guests, memory},
    support::{
        ENV, SAY, assemble, connect, guest_0_2, limits, module_with, numbers, room, room_of_one,
        send,
    },
};
use stateroom_wasmi_host::{Instant, Limits, LoadOptions, Module};
use std::thread;

/// Enough repetitions for leaked stack frames to overflow the stack. An interpreter that is not
/// optimised dispatches in a loop; then the test only shows that each instruction runs.
const TIMES: u32 = if cfg!(debug_assertions) {
    1_000
} else {
    20_000
};
const STACK_BYTES: usize = 256 << 10;

#[test]
fn no_number_instruction_grows_the_stack() {
    repeat(&instructions::numbers());
}

#[test]
fn no_memory_instruction_grows_the_stack() {
    repeat(&memory());
}

#[test]
fn no_control_instruction_grows_the_stack() {
    repeat(&control());
}

#[cfg(feature = "simd")]
#[test]
fn no_vector_instruction_grows_the_stack() {
    repeat(&vectors());
}

fn repeat(instructions: &[Instruction]) {
    let guests: Vec<String> = instructions
        .iter()
        .flat_map(|instruction| guests(instruction, TIMES))
        .collect();
    let run = move || guests.iter().for_each(|guest| run(guest));
    let thread = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(run)
        .expect("the thread starts");
    thread.join().expect("no instruction fails");
}

fn run(guest: &str) {
    let limits = limits(|limits| {
        limits.fuel_per_slice = u64::MAX;
        limits.max_fuel_per_event = Some(u64::MAX);
    });
    let v128 = if cfg!(feature = "simd") {
        "(global $v128 (mut v128) (v128.const i64x2 1 2))"
    } else {
        ""
    };
    let text = guest_0_2("", &[("connect", guest)], &format!("{DEFINITIONS} {v128}"));
    println!("{guest}");
    let options = LoadOptions::new();
    #[cfg(feature = "simd")]
    let options = options.simd(true);
    let module = Module::load_with(&assemble(&text), &limits, options)
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut room = room(&module);
    connect(&mut room, 1);
    assert_eq!(room.fault(), None, "{guest}");
}

#[test]
fn growing_in_a_start_function_or_by_single_bytes_takes_no_more_stack() {
    let growing = "(local $n i32) (loop $next (drop (memory.grow (i32.const 1)))
        (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000))))";
    let start = format!("(func $start {growing}) (start $start)");
    let texts = [
        guest_0_2("", &[], &start),
        guest_0_2("", &[("connect", growing)], "")
            .replace("\"memory\") 1", "\"memory\") 100 (pagesize 1)")
            .replace("(i32.const 4096)", "(i32.const 1)"),
    ];
    let run = move || {
        for text in texts {
            let limits = limits(|limits| limits.fuel_per_slice = u64::MAX);
            let mut room = room(&module_with(&text, &limits));
            connect(&mut room, 1);
            assert_eq!(room.fault(), None);
        }
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
    thread
        .expect("the thread starts")
        .join()
        .expect("no guest fails");
}

/// The interpreter takes the fuel of a block when it enters it, so what comes after the call was paid
/// for before it.
#[test]
fn growing_after_recursive_calls_takes_no_more_stack() {
    for grow in [
        "(memory.grow (i32.const -1))",
        "(table.grow $t (ref.null func) (i32.const -1))",
        "(table.grow $e (ref.null extern) (i32.const 1))",
        "(memory.grow $second (i32.const 1))",
    ] {
        let more = format!(
            "(table $t 1 funcref) (table $e 1 externref) (memory $second 1)
            (func $r (param i32)
                (block (br_if 0 (i32.eqz (local.get 0)))
                    (call $r (i32.sub (local.get 0) (i32.const 1)))
                    {}))",
            format!("(drop {grow}) ").repeat(40)
        );
        let text = guest_0_2("", &[("connect", "(call $r (i32.const 3000))")], &more);
        let run = move || {
            let limits = limits(|limits| limits.fuel_per_slice = u64::MAX);
            let mut room = room(&module_with(&text, &limits));
            connect(&mut room, 1);
            assert_eq!(room.fault(), None);
        };
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
        thread
            .expect("the thread starts")
            .join()
            .expect("no guest fails");
    }
}

#[test]
fn growth_keeps_its_meaning_where_it_is_a_call() {
    // In a module with imports, whose functions come first, and with everything that may be grown.
    let more = format!(
        "{SAY} (table $t 1 funcref) (table $e 1 5 externref) (memory $second 2 4)
        (global $n (mut i32) (i32.const 40))"
    );
    let body = "(call $say (memory.grow (i32.const 3)))
        (call $say (memory.grow $second (i32.const 1)))
        (call $say (memory.grow $second (i32.const 2)))
        (call $say (table.grow $t (ref.func $say) (i32.const 2)))
        (call $say (ref.is_null (table.get $t (i32.const 2))))
        (call $say (table.grow $e (ref.null extern) (i32.const 4)))
        (call $say (table.grow $e (ref.null extern) (i32.const 1)))
        (call $say (i32.add (memory.grow (i32.const 0)) (global.get $n)))
        (call $say (memory.size)) (call $say (memory.size $second)) (call $say (table.size $e))";
    let text = guest_0_2(
        ENV,
        &[("message", body)],
        &(more + "(elem declare func $say)"),
    );
    let mut room = room_of_one(&text, &Limits::default());
    send(&mut room, "go");
    assert_eq!(
        numbers(&mut room, Instant::ZERO),
        [1, 2, -1, 1, 0, 1, -1, 44, 4, 3, 5]
    );
    assert_eq!(room.fault(), None);
}
