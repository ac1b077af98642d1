//! The part of WASI preview 1 that rooms can use. Error numbers and structure layouts are those of
//! `wasi_snapshot_preview1.witx`.

use crate::support::{
    SAY, connect, guest_0_2, module, next_message, numbers, outputs, room, room_of_one, send,
};
use stateroom_wasmi_host::{
    ClientId, Event, Fault, FaultCause, Instant, Limits, Room, RoomOptions,
};
use std::time::Duration;

const SUCCESS: i32 = 0;
const EBADF: i32 = 8;
const EFAULT: i32 = 21;
const EINVAL: i32 = 28;
const ENOSYS: i32 = 52;
const ESPIPE: i32 = 70;

/// All of preview 1: each function with its parameters (`i` is an i32, `I` an i64). All return an
/// errno but `proc_exit`.
const FUNCTIONS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Functions that are implemented; all others return an error.
const IMPLEMENTED: [&str; 13] = [
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "fd_close",
    "fd_fdstat_get",
    "fd_seek",
    "fd_write",
    "proc_exit",
    "random_get",
    "sched_yield",
];

fn import(name: &str) -> String {
    let (_, params) = FUNCTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a WASI function");
    let params: String = params
        .chars()
        .map(|c| if c == 'I' { " i64" } else { " i32" })
        .collect();
    let result = if name == "proc_exit" {
        ""
    } else {
        "(result i32)"
    };
    format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param{params}) {result}))"#)
}

/// A call of a function with these arguments.
fn call(name: &str, arguments: &[i64]) -> String {
    let (_, params) = FUNCTIONS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a WASI function");
    assert_eq!(params.len(), arguments.len(), "{name}");
    let arguments = params
        .chars()
        .zip(arguments)
        .map(|(ty, argument)| match ty {
            'I' => format!("(i64.const {argument})"),
            _ => format!("(i32.const {})", *argument as u32),
        });
    format!("(call ${name} {})", arguments.collect::<String>())
}

const SEND_BINARY: &str = r#"(import "env" "send_binary" (func $send_binary (param i32 i32 i32)))"#;

/// A guest that runs `body` when client 1 connects.
fn guest(functions: &[&str], body: &str, more: &str) -> String {
    let imports = functions
        .iter()
        .fold(SEND_BINARY.to_owned(), |text, name| text + &import(name));
    guest_0_2(&imports, &[("connect", body)], &format!("{SAY} {more}"))
}

/// The errno of a function for each list of arguments.
fn errnos(name: &str, arguments: &[&[i64]]) -> Vec<i32> {
    let calls = arguments
        .iter()
        .map(|arguments| format!("(call $say {})", call(name, arguments)));
    let mut room = room(&module(&guest(&[name], &calls.collect::<String>(), "")));
    connect(&mut room, 1);
    let errnos = numbers(&mut room, Instant::ZERO);
    assert_eq!(room.fault(), None, "{name}");
    errnos
}

/// The errno of one call, and `len` bytes of memory after it.
fn errno_and_memory(name: &str, arguments: &[i64], at: u32, len: u32) -> (i32, Vec<u8>) {
    let show = format!("(call $send_binary (i32.const 0) (i32.const {at}) (i32.const {len}))");
    let body = format!("(call $say {}) {show}", call(name, arguments));
    // Memory is filled, so that bytes that the call does not write are recognisable.
    let fill = "(memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 0x10000))";
    connect_at(
        &guest(&[name], &format!("{fill} {body}"), ""),
        Instant::ZERO,
        RoomOptions::default(),
    )
}

fn connect_at(text: &str, now: Instant, options: RoomOptions) -> (i32, Vec<u8>) {
    let mut room = Room::new(&module(text), "", options).unwrap();
    room.handle_event(now, Event::Connect(ClientId(1))).unwrap();
    assert_eq!(room.fault(), None);
    let mut next = || {
        next_message(&mut room)
            .unwrap()
            .1
            .as_payload()
            .as_bytes()
            .to_owned()
    };
    let (errno, shown) = (next().try_into().unwrap(), next());
    (i32::from_le_bytes(errno), shown)
}

#[test]
fn all_functions_can_be_imported_at_once() {
    let names = FUNCTIONS.map(|(name, _)| name);
    let mut room = room_of_one(
        &guest(&names, "(call $say (call $sched_yield))", ""),
        &Limits::default(),
    );
    assert_eq!(room.fault(), None);
    assert_eq!(room.module().imports().count(), 46 + 1);
    send(&mut room, "still there");
    assert_eq!(room.fault(), None);
}

#[test]
fn unsupported_functions_return_an_error() {
    for (name, params) in FUNCTIONS
        .iter()
        .filter(|(name, _)| !IMPLEMENTED.contains(name))
    {
        let on_files = ["fd_", "path_", "sock_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let expected = if on_files { EBADF } else { ENOSYS };
        for argument in [0, 3, 65_535, -1] {
            let arguments = vec![argument; params.len()];
            assert_eq!(
                errnos(name, &[&arguments]),
                [expected],
                "{name}({argument}, …)"
            );
        }
    }
}

#[test]
fn arguments_and_environment_are_empty() {
    for name in ["args_sizes_get", "environ_sizes_get"] {
        let (errno, memory) = errno_and_memory(name, &[100, 104], 96, 16);
        assert_eq!(errno, SUCCESS);
        assert_eq!(
            memory,
            [[0xaa; 4], [0; 4], [0; 4], [0xaa; 4]].concat(),
            "two numbers, both 0"
        );
    }
    for name in ["args_get", "environ_get"] {
        let (errno, memory) = errno_and_memory(name, &[100, 104], 96, 16);
        assert_eq!(errno, SUCCESS);
        assert_eq!(memory, [0xaa; 16], "nothing is written");
    }
}

#[test]
fn clocks_return_the_time_of_the_event() {
    let options = RoomOptions::new().unix_time_at_zero(Duration::from_secs(1_700_000_000));
    let now = Instant::from_nanos(123_456_789_012);
    for (clock, expected) in [
        (0, 1_700_000_000_000_000_000 + 123_456_789_012_u64),
        (1, 123_456_789_012),
    ] {
        let show = "(call $send_binary (i32.const 0) (i32.const 100) (i32.const 8))";
        let body = format!(
            "(call $say {}) {show}",
            call("clock_time_get", &[clock, 1, 100])
        );
        let (errno, time) = connect_at(&guest(&["clock_time_get"], &body, ""), now, options);
        assert_eq!(
            (errno, time),
            (SUCCESS, expected.to_le_bytes().to_vec()),
            "clock {clock}"
        );
        let (errno, resolution) = errno_and_memory("clock_res_get", &[clock, 100], 100, 8);
        assert_eq!(errno, SUCCESS);
        assert_ne!(resolution, [0; 8]);
    }
}

#[test]
fn the_wall_clock_starts_in_1970_by_default_and_saturates() {
    let show = "(call $send_binary (i32.const 0) (i32.const 100) (i32.const 8))";
    let body = format!(
        "(call $say {}) {show}",
        call("clock_time_get", &[0, 0, 100])
    );
    let text = guest(&["clock_time_get"], &body, "");
    let (_, time) = connect_at(&text, Instant::from_millis(5), RoomOptions::default());
    assert_eq!(time, 5_000_000_u64.to_le_bytes());
    // The clock saturates.
    let options = RoomOptions::new().unix_time_at_zero(Duration::MAX);
    let (_, time) = connect_at(&text, Instant::MAX, options);
    assert_eq!(time, u64::MAX.to_le_bytes());
}

#[test]
fn unsupported_clocks_return_einval() {
    // 2 and 3 are the CPU time of a process and of a thread.
    for clock in [2, 3, 4, -1] {
        assert_eq!(errnos("clock_time_get", &[&[clock, 0, 100]]), [EINVAL]);
        assert_eq!(errnos("clock_res_get", &[&[clock, 100]]), [EINVAL]);
    }
}

#[test]
fn only_the_standard_streams_exist() {
    for fd in [0, 1, 2] {
        assert_eq!(errnos("fd_close", &[&[fd]]), [SUCCESS]);
        assert_eq!(errnos("fd_seek", &[&[fd, 0, 0, 100]]), [ESPIPE]);
        let (errno, stat) = errno_and_memory("fd_fdstat_get", &[fd, 104], 104, 24);
        assert_eq!(errno, SUCCESS);
        assert_eq!(stat[0], 2, "a character device");
        assert_eq!(stat[2..4], [0; 2], "no flags");
        let rights = u64::from_le_bytes(stat[8..16].try_into().unwrap());
        assert_eq!(
            rights,
            if fd == 0 { 0 } else { 1 << 6 },
            "the right to write"
        );
        assert_eq!(stat[16..], [0; 8], "no rights to inherit");
    }
    for fd in [3, 4, 1000, i64::from(i32::MAX), -1] {
        assert_eq!(errnos("fd_close", &[&[fd]]), [EBADF]);
        assert_eq!(errnos("fd_seek", &[&[fd, 0, 0, 100]]), [EBADF]);
        assert_eq!(errnos("fd_fdstat_get", &[&[fd, 100]]), [EBADF]);
        assert_eq!(errnos("fd_write", &[&[fd, 0, 0, 100]]), [EBADF]);
    }
    assert_eq!(
        errnos("fd_write", &[&[0, 0, 0, 100]]),
        [EBADF],
        "standard input is not writable"
    );
}

#[test]
fn sched_yield_succeeds() {
    assert_eq!(errnos("sched_yield", &[&[], &[]]), [SUCCESS, SUCCESS]);
}

/// Pointers at which `len` bytes are out of bounds.
fn bad_pointers(len: i64) -> [i64; 6] {
    [
        65_536 - len + 1,
        65_535,
        65_536,
        i64::from(i32::MAX),
        0x8000_0000,
        0xffff_ffff,
    ]
}

#[test]
fn pointers_out_of_bounds_return_efault() {
    for ptr in bad_pointers(4) {
        for name in ["args_sizes_get", "environ_sizes_get"] {
            assert_eq!(
                errnos(name, &[&[ptr, 100], &[100, ptr]]),
                [EFAULT, EFAULT],
                "{name} {ptr}"
            );
        }
        // The number of bytes written does not fit.
        assert_eq!(errnos("fd_write", &[&[1, 0, 0, ptr]]), [EFAULT], "{ptr}");
    }
    for ptr in bad_pointers(8) {
        assert_eq!(
            errnos("clock_time_get", &[&[0, 0, ptr], &[1, 0, ptr]]),
            [EFAULT; 2],
            "{ptr}"
        );
        assert_eq!(errnos("clock_res_get", &[&[0, ptr]]), [EFAULT], "{ptr}");
        // The list of buffers does not fit.
        assert_eq!(errnos("fd_write", &[&[1, ptr, 1, 100]]), [EFAULT], "{ptr}");
    }
    // The list ends out of bounds, or its end wraps.
    let lists: [&[i64]; 3] = [
        &[1, 65_528, 2, 100],
        &[1, 0xffff_fff8, 2, 100],
        &[1, 0xffff_ffff, 1024, 100],
    ];
    assert_eq!(errnos("fd_write", &lists), [EFAULT; 3]);
    for ptr in bad_pointers(24) {
        assert_eq!(errnos("fd_fdstat_get", &[&[1, ptr]]), [EFAULT], "{ptr}");
    }
    for ptr in bad_pointers(16) {
        assert_eq!(errnos("random_get", &[&[ptr, 16]]), [EFAULT]);
    }
    // Lengths that exceed memory, or wrap.
    let lengths: [&[i64]; 4] = [
        &[1, 65_536],
        &[65_535, 2],
        &[65_536, 1],
        &[0xffff_ffff, 65_536],
    ];
    assert_eq!(errnos("random_get", &lengths), [EFAULT; 4]);
}

#[test]
fn pointers_at_the_bounds_of_memory_are_valid() {
    for ptr in [0, 65_536 - 4] {
        assert_eq!(
            errnos("args_sizes_get", &[&[ptr, 100], &[100, ptr]]),
            [SUCCESS; 2]
        );
        assert_eq!(
            errnos("environ_sizes_get", &[&[ptr, 100], &[100, ptr]]),
            [SUCCESS; 2]
        );
        assert_eq!(
            errnos("fd_write", &[&[1, 65_536, 0, ptr]]),
            [SUCCESS],
            "no buffers, no pointer"
        );
    }
    for ptr in [0, 65_536 - 8] {
        assert_eq!(errnos("clock_time_get", &[&[0, 0, ptr]]), [SUCCESS]);
        assert_eq!(errnos("clock_res_get", &[&[0, ptr]]), [SUCCESS]);
        // A list of one buffer, which is empty.
        assert_eq!(errnos("fd_write", &[&[1, ptr, 1, 100]]), [SUCCESS]);
    }
    for ptr in [0, 65_536 - 24] {
        assert_eq!(errnos("fd_fdstat_get", &[&[1, ptr]]), [SUCCESS]);
    }
    let good: [&[i64]; 4] = [&[0, 65_536], &[65_535, 1], &[65_536, 0], &[0, 0]];
    assert_eq!(errnos("random_get", &good), [SUCCESS; 4]);
}

/// The errno and the number of bytes written when a guest writes buffers (pointer, length) to a
/// stream.
fn write(fd: i64, buffers: &[(u32, u32)]) -> (i32, u32) {
    let list: String = buffers
        .iter()
        .flat_map(|(ptr, len)| [*ptr, *len])
        .flat_map(u32::to_le_bytes)
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let count = buffers.len() as i64;
    let show = "(call $send_binary (i32.const 0) (i32.const 32) (i32.const 4))";
    let body = format!(
        "(call $say {}) {show}",
        call("fd_write", &[fd, 1024, count, 32])
    );
    let text = guest(
        &["fd_write"],
        &body,
        &format!("(data (i32.const 1024) \"{list}\")"),
    );
    let (errno, written) = connect_at(&text, Instant::ZERO, RoomOptions::default());
    (errno, u32::from_le_bytes(written.try_into().unwrap()))
}

#[test]
fn fd_write_returns_the_number_of_bytes_written() {
    for fd in [1, 2] {
        assert_eq!(write(fd, &[]), (SUCCESS, 0));
        assert_eq!(write(fd, &[(0, 0)]), (SUCCESS, 0));
        assert_eq!(
            write(fd, &[(0, 10), (65_536, 0), (65_530, 6)]),
            (SUCCESS, 16)
        );
    }
}

#[test]
fn buffers_out_of_bounds_return_efault() {
    for buffer in [
        (65_536, 1),
        (65_535, 2),
        (0, 65_537),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (1, u32::MAX),
    ] {
        assert_eq!(write(1, &[buffer]).0, EFAULT, "{buffer:?}");
        assert_eq!(write(1, &[(0, 3), buffer]).0, EFAULT, "{buffer:?}");
    }
}

#[test]
fn at_most_64_kib_are_written_at_once() {
    assert_eq!(write(1, &[(0, 65_536)]), (SUCCESS, 65_536));
    assert_eq!(write(1, &[(0, 40_000), (0, 40_000)]), (SUCCESS, 65_536));
}

#[test]
fn at_most_1024_buffers_are_written_at_once() {
    assert_eq!(write(1, &[(0, 1); 1024]), (SUCCESS, 1024));
    assert_eq!(write(1, &[(0, 1); 1025]).0, EINVAL);
    assert_eq!(errnos("fd_write", &[&[1, 0, 0xffff_ffff, 32]]), [EINVAL]);
}

/// The random numbers of a room with this seed: three times eight bytes.
fn random(seed: u64) -> Vec<String> {
    let draw = format!(
        "(drop {}) (call $send_binary (i32.const 0) (i32.const 100) (i32.const 8))",
        call("random_get", &[100, 8])
    );
    let module = module(&guest(&["random_get"], &draw.repeat(3), ""));
    let options = RoomOptions::new().seed(seed);
    let mut room = Room::new(&module, "", options).unwrap();
    connect(&mut room, 1);
    outputs(&mut room, Instant::ZERO)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect()
}

#[test]
fn random_numbers_depend_only_on_the_seed() {
    let seeds = [0, 1, 2, u64::MAX];
    let mut all: Vec<String> = Vec::new();
    for seed in seeds {
        assert_eq!(random(seed), random(seed));
        all.extend(random(seed));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 3 * seeds.len(), "no number is drawn twice");
}

#[test]
fn more_than_64_kib_of_random_bytes_return_einval() {
    let calls: [&[i64]; 3] = [&[0, 65_536], &[0, 65_537], &[0, 0xffff_ffff]];
    assert_eq!(errnos("random_get", &calls), [SUCCESS, EINVAL, EINVAL]);
}

#[test]
fn proc_exit_is_a_fault_with_its_code() {
    for code in [0, 1, 42, -1, i32::MIN] {
        let text = guest(&["proc_exit"], &call("proc_exit", &[i64::from(code)]), "");
        let mut room = room(&module(&text));
        connect(&mut room, 1);
        let fault = Fault {
            during: "connect",
            cause: FaultCause::Exit { code },
        };
        assert_eq!(room.fault(), Some(&fault));
        assert_eq!(
            fault.to_string(),
            format!("the guest failed in `connect`: it exited with code {code}")
        );
    }
}

#[test]
fn the_reactor_constructor_runs_first_and_once() {
    let say = |n: i32| format!("(call $say (i32.const {n}))");
    let text = guest_0_2(
        SEND_BINARY,
        &[
            ("jam_malloc", &(say(2) + "(i32.const 4096)")),
            ("initialize", &say(3)),
            ("connect", &say(4)),
            ("message", &say(5)),
        ],
        &format!(r#"{SAY} (func (export "_initialize") {})"#, say(1)),
    );
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    send(&mut room, "hi");
    assert_eq!(numbers(&mut room, Instant::ZERO), [1, 2, 3, 4, 5]);
}

#[test]
fn a_start_function_may_use_wasi_and_send() {
    let body = format!("(call $say {})", call("random_get", &[100, 8]));
    let text = guest_0_2(
        &(SEND_BINARY.to_owned() + &import("random_get")),
        &[],
        &format!("{SAY} (func $start {body}) (start $start)"),
    );
    let mut room = room(&module(&text));
    assert_eq!(numbers(&mut room, Instant::ZERO), [SUCCESS]);
}

#[cfg(feature = "log")]
mod printing {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// Log lines of this thread, that is, of this test.
        static LINES: RefCell<Vec<(log::Level, String)>> = const { RefCell::new(Vec::new()) };
    }

    struct Logger;

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.target() == "guest" {
                LINES.with_borrow_mut(|lines| {
                    lines.push((record.level(), record.args().to_string()))
                });
            }
        }

        fn flush(&self) {}
    }

    /// The log lines when a guest writes these texts, each in one call.
    fn logged(fd: i64, texts: &[&[u8]]) -> Vec<(log::Level, String)> {
        // Another test may have set the logger before.
        let _ = log::set_logger(&Logger);
        log::set_max_level(log::LevelFilter::Trace);
        let write = r"
            (i32.store (i32.const 32) (local.get 1))
            (i32.store (i32.const 36) (local.get 2))";
        let body = format!("{write} (drop {})", call("fd_write", &[fd, 32, 1, 40]));
        let text = guest_0_2(&import("fd_write"), &[("binary", &body)], "");
        let mut room = room(&module(&text));
        connect(&mut room, 1);
        texts.iter().for_each(|text| send(&mut room, *text));
        assert_eq!(room.fault(), None);
        LINES.take()
    }

    fn lines(level: log::Level, lines: &[&str]) -> Vec<(log::Level, String)> {
        lines
            .iter()
            .map(|line| (level, (*line).to_owned()))
            .collect()
    }

    #[test]
    fn output_is_logged_by_line() {
        use log::Level::{Info, Warn};
        assert_eq!(logged(1, &[b"hello\n"]), lines(Info, &["hello"]));
        assert_eq!(logged(2, &[b"oh no\n"]), lines(Warn, &["oh no"]));
        assert_eq!(
            logged(1, &[b"no end of line"]),
            [] as [(log::Level, String); 0]
        );
        assert_eq!(
            logged(1, &[b"one ", b"line\nand ", b"another\n\n"]),
            lines(Info, &["one line", "and another", ""])
        );
    }

    #[test]
    fn control_characters_are_escaped_in_the_log() {
        assert_eq!(
            logged(1, &[b"\x1b[31mred\r\0\xff\n"]),
            lines(log::Level::Info, &[r"\x1b[31mred\r\x00\xff"])
        );
    }

    #[test]
    fn long_lines_are_logged_in_pieces_without_loss() {
        let long = "x".repeat(1000);
        let logged = logged(1, &[long.as_bytes(), b"\n"]);
        assert!(logged.len() > 1);
        assert_eq!(
            logged
                .into_iter()
                .map(|(_, piece)| piece)
                .collect::<String>(),
            long
        );
    }
}
