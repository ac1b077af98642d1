//! What each thing that a guest can make the host do costs the host, for each unit of fuel that it
//! costs the guest: `cargo bench --bench cost_audit --features log,simd,snapshot`.
//!
//! Each case runs alone: an instruction in a loop, a host function with its worst arguments, a part of
//! a module, a recovery. It is run in a thread of its own, whose stack is measured, and again under
//! callgrind (Debian's `valgrind`), which counts the instructions of the processor. Both are the same
//! on a machine that is busy, so that CI can compare them with bounds; times are only shown.
//!
//! - `--check` fails if a case costs more than [`MAX_RATIO`] times the median instruction, or takes
//!   more than [`MAX_STACK_BYTES`].
//! - `--markdown` prints the table of `docs/costs.md`.

#![allow(unreachable_pub, reason = "a bench exports nothing")]

#[path = "../tests/support/instructions.rs"]
mod instructions;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/support/mod.rs"]
mod support;

use instructions::{DEFINITIONS, Instruction, control, guests, memory, numbers, repeated, vectors};
use stateroom_wasmi_host::{
    ClientId, Event, FaultPolicy, Instant, Limits, LoadOptions, Module, Room, RoomOptions,
};
use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    hint::black_box,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant as Time},
};
use support::{ENV, assemble, guest_0_2};

/// How much more of the processor's instructions a unit of fuel may buy than the median does.
const MAX_RATIO: f64 = 32.0;
/// What a guest may take of the host's stack, in a thread of 256 KiB.
const MAX_STACK_BYTES: usize = 160 << 10;

const CLIENT: ClientId = ClientId(1);
const NOW: Instant = Instant::from_millis(1);

/// Something that a stranger's module can make the host do.
struct Case {
    group: &'static str,
    name: String,
    prepare: Box<dyn Fn() -> Work>,
}

/// The part of a case that is measured. Returns the fuel that the guest was charged, or that
/// `Host::poll` counts.
type Work = Box<dyn FnMut() -> u64 + Send>;

/// What guests print is formatted, as for a logger that writes it somewhere.
struct Formatter;

impl log::Log for Formatter {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        black_box(format!(
            "[{} {}] {}",
            record.level(),
            record.target(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

fn main() {
    log::set_logger(&Formatter).expect("it is the first");
    log::set_max_level(log::LevelFilter::Info);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let cases = cases();
    if has("--under-callgrind") {
        for case in &cases {
            measured(&mut (case.prepare)());
        }
        return;
    }
    let instructions = count_instructions(cases.len());
    let results: Vec<Costs> = cases
        .iter()
        .zip(instructions)
        .map(|(case, instructions)| Costs::of(case, instructions))
        .collect();
    let median = median(&results);
    if has("--markdown") {
        print!("{}", markdown(&results, median));
    } else {
        print(&results, median);
    }
    if has("--check") {
        check(&results, median);
    }
}

/// Its symbol tells callgrind where a case begins and ends.
#[inline(never)]
fn measured(work: &mut Work) -> u64 {
    black_box(work())
}

/// The instructions of each case, counted in another process.
fn count_instructions(cases: usize) -> Vec<u64> {
    let folder = env::temp_dir().join(format!("cost-audit-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .args(["--dump-before=cost_audit::measured"])
        .args(["--dump-after=cost_audit::measured"])
        .arg(format!(
            "--callgrind-out-file={}",
            folder.join("out").display()
        ))
        .arg(env::current_exe().expect("this program"))
        .arg("--under-callgrind")
        // Callgrind counts each step of a repeated string instruction, which takes no such time.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_stosb_threshold=1000000000:glibc.cpu.x86_rep_movsb_threshold=1000000000",
        )
        .status()
        .expect("valgrind is installed");
    assert!(status.success(), "callgrind failed");
    // One dump for what came before a case, and one for the case.
    let counts = (1..=cases).map(|case| total(&folder.join(format!("out.{}", 2 * case))));
    let counts = counts.collect();
    let _ = fs::remove_dir_all(&folder);
    counts
}

fn total(dump: &Path) -> u64 {
    let text = fs::read_to_string(dump).expect("a dump for each case");
    let line = text.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    });
    line.and_then(|count| count.trim().parse().ok())
        .expect("a dump has a total")
}

struct Costs {
    group: &'static str,
    name: String,
    fuel: u64,
    instructions: u64,
    time: Duration,
    stack_bytes: usize,
}

impl Costs {
    fn of(case: &Case, instructions: u64) -> Self {
        let mut work = (case.prepare)();
        // Deep enough for any overflow to be seen as a figure instead of a crash.
        let thread = thread::Builder::new().stack_size(64 << 20);
        let run = move || {
            let start = Time::now();
            let fuel = measured(&mut work);
            (fuel, start.elapsed(), stack_bytes())
        };
        let thread = thread.spawn(run).expect("a thread starts");
        let (fuel, time, stack_bytes) = thread.join().expect("the case does not panic");
        Self {
            group: case.group,
            name: case.name.clone(),
            fuel,
            instructions,
            time,
            stack_bytes,
        }
    }

    fn per_fuel(&self) -> f64 {
        self.instructions as f64 / self.fuel.max(1) as f64
    }
}

/// The resident bytes of this thread's stack: all that was ever used of it, in whole pages.
fn stack_bytes() -> usize {
    let local = 0_u8;
    let here = std::ptr::from_ref(&local) as usize;
    let maps = fs::read_to_string("/proc/self/smaps").expect("Linux tells what is resident");
    let mut is_here = false;
    for line in maps.lines() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let parse = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (parse(from), parse(to))) {
            is_here = (from..to).contains(&here);
        } else if is_here && let Some(size) = line.strip_prefix("Rss:") {
            let kib = size.trim().trim_end_matches(" kB").parse::<usize>();
            return kib.expect("a number") << 10;
        }
    }
    panic!("the stack is a mapping");
}

/// The median of the instructions, which is what a unit of fuel is meant to buy.
fn median(results: &[Costs]) -> f64 {
    let of_instructions = results.iter().filter(|costs| costs.group == "instruction");
    let mut ratios: Vec<f64> = of_instructions.map(Costs::per_fuel).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn print(results: &[Costs], median: f64) {
    println!("median: {median:.1} instructions of the processor for a unit of fuel");
    println!("{:>8} {:>10} {:>7}  case", "ratio", "ns/fuel", "stack");
    for costs in results {
        println!(
            "{:8.2} {:10.2} {:4} KiB  {}: {}",
            costs.per_fuel() / median,
            costs.time.as_nanos() as f64 / costs.fuel.max(1) as f64,
            costs.stack_bytes >> 10,
            costs.group,
            costs.name,
        );
    }
}

/// The costliest of each group, and what takes most of the stack.
fn markdown(results: &[Costs], median: f64) -> String {
    const ROWS: usize = 6;
    let mut text = format!(
        "The median instruction: {median:.1} of the processor's for a unit of fuel.\n\n\
         | | × the median | stack, KiB |\n| --- | --- | --- |\n"
    );
    let mut groups: Vec<&str> = results.iter().map(|costs| costs.group).collect();
    groups.dedup();
    for group in groups {
        let mut rows: Vec<&Costs> = results
            .iter()
            .filter(|costs| costs.group == group)
            .collect();
        rows.sort_by(|a, b| b.per_fuel().total_cmp(&a.per_fuel()));
        let _ = writeln!(text, "| **{group}** ({} cases) | | |", rows.len());
        let most_stack = rows.iter().skip(ROWS).max_by_key(|costs| costs.stack_bytes);
        for costs in rows.iter().take(ROWS).chain(most_stack) {
            let (ratio, stack) = (costs.per_fuel() / median, costs.stack_bytes >> 10);
            let _ = writeln!(text, "| {} | {ratio:.1} | {stack} |", costs.name);
        }
    }
    text
}

fn check(results: &[Costs], median: f64) {
    let too_much: Vec<String> = results
        .iter()
        .filter(|costs| {
            costs.per_fuel() > MAX_RATIO * median || costs.stack_bytes > MAX_STACK_BYTES
        })
        .map(|costs| {
            let ratio = costs.per_fuel() / median;
            format!(
                "{}: {} ({ratio:.1} × the median, {} bytes of stack)",
                costs.group, costs.name, costs.stack_bytes
            )
        })
        .collect();
    assert!(
        too_much.is_empty(),
        "these cost more than {MAX_RATIO} × the median, or {MAX_STACK_BYTES} bytes of stack:\n{}",
        too_much.join("\n")
    );
    println!("{} cases are within their bounds", results.len());
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(instruction_cases());
    all.extend(host_functions());
    all.extend(functions());
    all.extend(instances());
    all.extend(recoveries());
    all
}

/// How often each instruction is written in the loop, so that the loop itself costs little.
const UNROLLED: usize = 20;
const TIMES: u32 = 50;

fn instruction_cases() -> Vec<Case> {
    let lists = [numbers(), memory(), control(), vectors()];
    let all: Vec<Instruction> = lists.into_iter().flatten().chain(bulk()).collect();
    let mut seen = HashMap::new();
    all.into_iter()
        // The stack tests have some twice.
        .filter(|instruction| seen.insert(instruction.text.clone(), ()).is_none())
        // Its body is 64 instructions by itself.
        .filter(|instruction| instruction.text.len() < 200)
        .map(|instruction| {
            let body = guests(&instruction, 1).swap_remove(0);
            let body = unrolled(&body);
            let more = format!("{DEFINITIONS} (global $v128 (mut v128) (v128.const i64x2 1 2))");
            Case {
                group: "instruction",
                name: instruction.text,
                prepare: Box::new(move || {
                    message_work(&guest_0_2("", &[("message", &body)], &more))
                }),
            }
        })
        .collect()
}

/// The loop's body of a guest that runs an instruction once, repeated.
fn unrolled(body: &str) -> String {
    let start = body.find("(loop $next ").expect("it is a loop") + "(loop $next ".len();
    let end = body.find("(br_if $next").expect("it repeats");
    let (locals, statement) = (
        &body[..start - "(loop $next ".len()],
        body[start..end].trim(),
    );
    let whole = repeated(&format!("{statement} ").repeat(UNROLLED), TIMES);
    let rest = &whole[whole.find("(loop $next ").expect("it is a loop")..];
    format!("{locals} {rest}")
}

/// Instructions on much at once.
fn bulk() -> Vec<Instruction> {
    let whole = |text: &str| Instruction {
        text: text.to_owned(),
        operands: Vec::new(),
        has_result: false,
    };
    vec![
        whole("memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)"),
        whole("memory.copy (i32.const 0) (i32.const 1) (i32.const 65535)"),
        whole("memory.copy (i32.const 1) (i32.const 0) (i32.const 65535)"),
        whole("table.fill $t (i32.const 1) (ref.null func) (i32.const 7)"),
        whole("table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 7)"),
    ]
}

/// Work that lets a guest handle a message, after it has handled one.
fn message_work(text: &str) -> Work {
    let options = LoadOptions::new().simd(true);
    let limits = Limits::new()
        .fuel_per_slice(u64::MAX)
        .max_fuel_per_event(Some(u64::MAX));
    let module = Module::load_with(&assemble(text), &limits, options)
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut room = room(&module, RoomOptions::new());
    say(&mut room, "x");
    assert_eq!(room.last_fault(), None, "{text:.2000}");
    Box::new(move || {
        let before = room.fuel_used();
        say(&mut room, "x");
        assert_eq!(room.last_fault(), None);
        room.fuel_used() - before
    })
}

fn room(module: &Module, options: RoomOptions) -> Room {
    let mut room = Room::new(module, "audit", options).expect("the room opens");
    give(&mut room, Event::Connect(CLIENT));
    room
}

fn say(room: &mut Room, text: &str) {
    give(room, Event::message(CLIENT, text));
}

fn give(room: &mut Room, event: Event<'_>) {
    room.handle_event(NOW, event).expect("it is accepted");
    loop {
        while room.poll_output().is_some() {}
        if !room.has_work(NOW) {
            break;
        }
        room.resume(NOW);
    }
}

fn host_functions() -> Vec<Case> {
    const WASI: &str = "wasi_snapshot_preview1";
    let import = |module: &str, name: &str, params: usize, result: &str| {
        let params = "i32 ".repeat(params);
        format!(r#"(import "{module}" "{name}" (func $f (param {params}) {result}))"#)
    };
    let env = |name: &str, params| import("env", name, params, "");
    let wasi = |name: &str, params| import(WASI, name, params, "(result i32)");
    // The arguments: numbers, by what they do.
    let rows = [
        ("send_message, empty", env("send_message", 3), "0 0 0", 40),
        (
            "send_message, 1 KiB",
            env("send_message", 3),
            "0 1024 1024",
            40,
        ),
        (
            "send_message, 29 KB",
            env("send_message", 3),
            "0 0 29000",
            20,
        ),
        ("send_binary, empty", env("send_binary", 3), "0 0 0", 40),
        (
            "send_binary, 60 KiB",
            env("send_binary", 3),
            "0 0 60000",
            20,
        ),
        ("set_timer", env("set_timer", 1), "5", 1000),
        ("fd_write, nothing", wasi("fd_write", 4), "1 0 0 8", 1000),
        (
            "fd_write, 1,024 empty buffers",
            wasi("fd_write", 4),
            "1 40000 1024 8",
            10,
        ),
        (
            "fd_write, 1 KiB of text",
            wasi("fd_write", 4),
            "1 30000 1 8",
            10,
        ),
        (
            "fd_write, 1 KiB to be escaped",
            wasi("fd_write", 4),
            "1 30008 1 8",
            10,
        ),
        ("fd_write, 60 KiB", wasi("fd_write", 4), "1 30016 1 8", 4),
        ("fd_write, of no file", wasi("fd_write", 4), "9 0 0 8", 1000),
        ("random_get, 1 byte", wasi("random_get", 2), "0 1", 1000),
        (
            "random_get, 60,000 bytes",
            wasi("random_get", 2),
            "0 60000",
            4,
        ),
        (
            "random_get, out of memory",
            wasi("random_get", 2),
            "-1 60000",
            100,
        ),
        ("sched_yield", wasi("sched_yield", 0), "", 1000),
        ("args_sizes_get", wasi("args_sizes_get", 2), "0 4", 1000),
        ("environ_get", wasi("environ_get", 2), "0 4", 1000),
        ("fd_fdstat_get", wasi("fd_fdstat_get", 2), "1 8", 1000),
        ("fd_close", wasi("fd_close", 1), "1", 1000),
        (
            "fd_prestat_get, unsupported",
            wasi("fd_prestat_get", 2),
            "3 8",
            1000,
        ),
        ("clock_res_get", wasi("clock_res_get", 2), "1 8", 1000),
        ("fd_filestat_get", wasi("fd_filestat_get", 2), "1 8", 1000),
        ("fd_read", wasi("fd_read", 4), "0 0 0 8", 1000),
        ("fd_sync, without effect", wasi("fd_sync", 1), "1", 1000),
        (
            "poll_oneoff, one subscription",
            wasi("poll_oneoff", 4),
            "32768 32768 1 62000",
            1000,
        ),
        (
            "poll_oneoff, 600 subscriptions",
            wasi("poll_oneoff", 4),
            "32768 32768 600 62000",
            10,
        ),
        (
            "poll_oneoff, too many subscriptions",
            wasi("poll_oneoff", 4),
            "32768 32768 -1 62000",
            1000,
        ),
    ];
    let data = "(func $prepare
        (memory.fill (i32.const 1024) (i32.const 120) (i32.const 1024))
        (i32.store (i32.const 30000) (i32.const 1024)) (i32.store (i32.const 30004) (i32.const 1024))
        (i32.store (i32.const 30008) (i32.const 8192)) (i32.store (i32.const 30012) (i32.const 1024))
        (i32.store (i32.const 30016) (i32.const 0)) (i32.store (i32.const 30020) (i32.const 60000)))";
    rows.into_iter()
        .map(|(name, import, arguments, times)| {
            let arguments: String = arguments
                .split_whitespace()
                .map(|n| format!("(i32.const {n})"))
                .collect();
            let call = format!("(call $f {arguments})");
            let call = if import.contains("(result") {
                format!("(drop {call})")
            } else {
                call
            };
            let body = format!("(local $n i32) (call $prepare) (loop $next {call} (br_if $next
                (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {times}))))");
            let text = guest_0_2(&import, &[("message", &body)], data);
            Case {
                group: "host function",
                name: name.to_owned(),
                prepare: Box::new(move || message_work(&text)),
            }
        })
        .collect()
}

/// Calls of functions that are as large as a module may make them.
fn functions() -> Vec<Case> {
    let limits = Limits::new();
    let many = |what: &str, times: usize| format!("{what} ").repeat(times);
    let calls = |call: &str| repeated(&call.repeat(UNROLLED), TIMES);
    let locals = many("i64", limits.max_function_locals);
    let (values, constants) = (many("i64", 32), many("(i64.const 1)", 32));
    let drops = many("drop", 32);
    let targets = many("0", 10_000);
    let rows = [
        (
            "call of a function with as many locals as it may have",
            calls("(call $f)"),
            format!("(func $f (local {locals}))"),
        ),
        (
            "call with 32 parameters",
            repeated("(call $g)", TIMES),
            format!("(func $f (param {values})) (func $g (call $f {constants}))"),
        ),
        (
            "call with 32 results",
            repeated("(call $g)", TIMES),
            format!("(func $f (result {values}) {constants}) (func $g (call $f) {drops})"),
        ),
        (
            "branch with 32 values",
            repeated("(call $g)", TIMES),
            format!("(func $g (block (result {values}) {constants} (br 0)) {drops})"),
        ),
        (
            "br_table with 10,000 targets",
            calls("(block (br_table 0 0 (local.get $i32)))").replacen("br_table 0 0", &format!("br_table {targets}"), 1),
            String::new(),
        ),
        (
            "recursion, 9,000 deep",
            "(call $f (i32.const 9000))".to_owned(),
            "(func $f (param i32) (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))))".to_owned(),
        ),
        (
            "memory.grow, refused, after recursive calls",
            "(call $f (i32.const 3000))".to_owned(),
            format!(
                "(func $f (param i32) (block (br_if 0 (i32.eqz (local.get 0)))
                    (call $f (i32.sub (local.get 0) (i32.const 1))) {}))",
                many("(drop (memory.grow (i32.const -1)))", 40)
            ),
        ),
        (
            "memory.grow, refused, 64 in a row",
            repeated(&format!("(drop {} (i32.const -1) {})", "(memory.grow ".repeat(64), ")".repeat(64)), 2000),
            String::new(),
        ),
        (
            "table.grow, refused, 64 in a row",
            repeated(&format!("(drop {} (i32.const -1) {})", "(table.grow (ref.null func) ".repeat(64), ")".repeat(64)), 2000),
            "(table 1 funcref)".to_owned(),
        ),
        (
            "memory.grow, granted",
            repeated("(drop (memory.grow (i32.const 1)))", 300),
            String::new(),
        ),
    ];
    rows.into_iter()
        .map(|(name, body, more)| {
            let text = guest_0_2("", &[("message", &body)], &more);
            Case {
                group: "function",
                name: name.to_owned(),
                prepare: Box::new(move || message_work(&text)),
            }
        })
        .collect()
}

/// Making an instance of a module with much of something.
fn instances() -> Vec<Case> {
    let many = |part: &str, times: usize| part.repeat(times);
    let exports = |times: usize| {
        (0..times)
            .map(|i| format!(r#"(export "a name of some length {i}" (memory 0))"#))
            .collect::<String>()
    };
    let rows = [
        ("a small module", String::new()),
        ("20,000 functions", many("(func)", 20_000)),
        (
            "20,000 globals",
            many("(global (mut i64) (i64.const 0))", 20_000),
        ),
        ("20,000 exports", exports(20_000)),
        (
            "20,000 passive data segments",
            many(r#"(data "x")"#, 20_000),
        ),
        (
            "20,000 active data segments",
            many(r#"(data (i32.const 0) "x")"#, 20_000),
        ),
        (
            "1 MiB of data",
            format!(r#"(data (i32.const 0) "{}")"#, "x".repeat(60_000)).repeat(17),
        ),
        (
            "20,000 element segments",
            format!("(func $f) {}", many("(elem func $f)", 20_000)),
        ),
        (
            "an element segment of 20,000",
            format!(
                "(table 20000 funcref) (func $f) (elem (i32.const 0) {})",
                many("$f ", 20_000)
            ),
        ),
        (
            "64 tables of 1,000 elements",
            many("(table 1000 funcref)", 64),
        ),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, more)| instance(name, guest_0_2("", &[], &more)))
        .collect();
    let timers = r#"(import "env" "set_timer" (func (param i32)))"#;
    let paths = r#"(import "wasi_snapshot_preview1" "path_open"
        (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
    for (name, import) in [("5,000 imports", timers), ("5,000 imports of WASI", paths)] {
        cases.push(instance(name, guest_0_2(&many(import, 5000), &[], "")));
    }
    for pages in [17, 256] {
        let text = guest_0_2("", &[], "").replace("\"memory\") 1", &format!("\"memory\") {pages}"));
        cases.push(instance(&format!("{pages} pages of memory"), text));
    }
    cases
}

fn instance(name: &str, text: String) -> Case {
    Case {
        group: "instance",
        name: name.to_owned(),
        prepare: Box::new(move || {
            let module = Module::load(&assemble(&text), &Limits::new())
                .unwrap_or_else(|error| panic!("{error}"));
            Box::new(move || {
                let room = Room::new(&module, "audit", RoomOptions::new()).expect("it opens");
                assert_eq!(room.last_fault(), None);
                room.fuel_used() + room.host_work()
            })
        }),
    }
}

/// A fault, and what follows it, of a guest with 17 pages of memory, one of which is in use.
fn recoveries() -> Vec<Case> {
    let text = guest_0_2(
        ENV,
        &[
            (
                "message",
                "(memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))",
            ),
            ("binary", "(unreachable)"),
        ],
        "",
    )
    .replace("\"memory\") 1", "\"memory\") 17");
    let policies = [
        ("restart", FaultPolicy::Restart(Default::default())),
        ("rollback", FaultPolicy::Rollback),
    ];
    policies
        .into_iter()
        .map(|(name, policy)| {
            let text = text.clone();
            Case {
                group: "recovery",
                name: name.to_owned(),
                prepare: Box::new(move || {
                    let options = LoadOptions::new().snapshots(true);
                    let module = Module::load_with(&assemble(&text), &Limits::new(), options)
                        .expect("the module loads");
                    let mut room = room(&module, RoomOptions::new().on_fault(policy));
                    for _ in 0..5 {
                        say(&mut room, "x");
                    }
                    Box::new(move || {
                        let cost = |room: &Room| room.fuel_used() + room.host_work();
                        let before = cost(&room);
                        give(&mut room, Event::message(CLIENT, &[0]));
                        let later = room.poll_timeout().unwrap_or(NOW);
                        room.handle_timeout(later);
                        while room.has_work(later) {
                            room.resume(later);
                        }
                        assert!(!room.is_closed() && !room.is_restarting());
                        cost(&room) - before
                    })
                }),
            }
        })
        .collect()
}
