//! No instruction grows the host's stack when it is repeated.
//!
//! The interpreter dispatches instructions by tail calls. If the compiler does not turn one of
//! them into a jump, a guest that repeats the instruction overflows the thread's stack, which
//! aborts the process. So each instruction is repeated here, in a thread with a small stack. The
//! last line that `--nocapture` shows is the guest that failed.

#[cfg(feature = "simd")]
use crate::instructions::vectors;
use crate::{
    instructions::{DEFINITIONS, Instruction, control, grow_often, guests, memory, numbers},
    support::{assemble, connect, guest_0_2, limits, module_with, room},
};
use stateroom_wasmi_host::{Limits, LoadOptions, Module};
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
    repeat(&numbers());
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

#[test]
fn functions_that_grow_something_in_very_many_places_are_refused() {
    for grow in [
        "memory.grow",
        "memory.grow $second",
        "table.grow $t (ref.null func)",
    ] {
        let text = |times| {
            let body = format!("(drop ({}))", grow_often(grow, times));
            guest_0_2(
                "",
                &[("timer", &body)],
                "(table $t 1 funcref) (memory $second 1)",
            )
        };
        let load = |times| Module::load(&assemble(&text(times)), &Limits::default());
        assert!(load(64).is_ok());
        let error = load(65).expect_err("it is refused").to_string();
        assert!(
            error.contains("has 65 instructions in one function that grow"),
            "{error}"
        );
    }
    // Its bytes, 0x40 and 0, do not count where they are those of others: a block's type, `unreachable`.
    let others = "(if (i32.const 0) (then (unreachable)))".repeat(1000);
    let text = guest_0_2("", &[("timer", &others)], "");
    assert!(Module::load(&assemble(&text), &Limits::default()).is_ok());
}
