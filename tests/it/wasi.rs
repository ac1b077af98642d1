//! WASI, as far as rooms can use it. Error numbers and structure layouts are those of
//! `wasi_snapshot_preview1.witx` and `wasi_unstable.witx`.

use crate::support::{
    ENV, SAY, assemble, connect, guest_0_2, limits, module, module_with, next_message, numbers,
    outputs, room, room_of_one, send,
};
use stateroom_wasmi_host::{
    Budget, ClientId, Clock, Event, Fault, FaultCause, Host, Instant, Limits, ManualClock,
    OwnedPayload, RecordingTransport, Room, RoomOptions,
};
use std::time::Duration;

const SUCCESS: i32 = 0;
const EBADF: i32 = 8;
const EFAULT: i32 = 21;
const EINVAL: i32 = 28;
const ENOTSUP: i32 = 58;
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

/// The functions that only return an errno: what it is for standard input and for the other two
/// streams. Nothing else is open.
const WITHOUT_EFFECT: [(&str, i32, i32); 32] = [
    ("fd_advise", EBADF, EBADF),
    ("fd_allocate", ENOTSUP, ENOTSUP),
    ("fd_close", SUCCESS, SUCCESS),
    ("fd_datasync", SUCCESS, SUCCESS),
    ("fd_fdstat_set_flags", SUCCESS, SUCCESS),
    ("fd_fdstat_set_rights", SUCCESS, SUCCESS),
    ("fd_filestat_set_size", EBADF, EBADF),
    ("fd_filestat_set_times", EBADF, EBADF),
    ("fd_pread", ESPIPE, EBADF),
    ("fd_prestat_get", EBADF, EBADF),
    ("fd_prestat_dir_name", EBADF, EBADF),
    ("fd_pwrite", EBADF, ESPIPE),
    ("fd_readdir", EBADF, EBADF),
    ("fd_renumber", ENOTSUP, ENOTSUP),
    ("fd_seek", ESPIPE, ESPIPE),
    ("fd_sync", SUCCESS, SUCCESS),
    ("fd_tell", ESPIPE, ESPIPE),
    ("path_create_directory", EBADF, EBADF),
    ("path_filestat_get", EBADF, EBADF),
    ("path_filestat_set_times", EBADF, EBADF),
    ("path_link", EBADF, EBADF),
    ("path_open", EBADF, EBADF),
    ("path_readlink", EBADF, EBADF),
    ("path_remove_directory", EBADF, EBADF),
    ("path_rename", EBADF, EBADF),
    ("path_symlink", EBADF, EBADF),
    ("path_unlink_file", EBADF, EBADF),
    ("sock_accept", EBADF, EBADF),
    ("sock_recv", EBADF, EBADF),
    ("sock_send", EBADF, EBADF),
    ("sock_shutdown", EBADF, EBADF),
    // No stream can be read but standard input.
    ("fd_read", SUCCESS, EBADF),
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
    let mut next = || {
        let message = loop {
            assert_eq!(room.fault(), None);
            match next_message(&mut room) {
                Some((_, message)) => break message,
                None => room.resume(now),
            }
        };
        message.as_payload().as_bytes().to_owned()
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
fn functions_on_streams_return_an_errno() {
    for (name, input, output) in WITHOUT_EFFECT {
        let (_, params) = FUNCTIONS.iter().find(|(known, _)| *known == name).unwrap();
        for (fd, expected) in [
            (0, input),
            (1, output),
            (2, output),
            (3, EBADF),
            (65_535, EBADF),
            (-1, EBADF),
        ] {
            let mut arguments = vec![64; params.len()];
            arguments[0] = fd;
            assert_eq!(errnos(name, &[&arguments]), [expected], "{name}({fd}, …)");
        }
    }
}

#[test]
fn preview_0_has_the_same_functions() {
    for (name, params) in FUNCTIONS {
        let text = guest(&[name], "", "").replace("wasi_snapshot_preview1", "wasi_unstable");
        let loaded = stateroom_wasmi_host::Module::load(&assemble(&text), &Limits::default());
        // Preview 1 has added one.
        assert_eq!(loaded.is_ok(), name != "sock_accept", "{name}({params})");
    }
    let draw = format!("(call $say {})", call("random_get", &[512, 4]));
    let text = guest(&["random_get"], &draw, "").replace("wasi_snapshot_preview1", "wasi_unstable");
    let mut room = room(&module(&text));
    connect(&mut room, 1);
    assert_eq!(numbers(&mut room, Instant::ZERO), [SUCCESS]);
}

#[test]
fn the_file_status_of_a_stream_has_the_layout_of_its_version() {
    let body = format!(
        "(memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 0x10000)) (call $say {})
         (call $send_binary (i32.const 0) (i32.const 104) (i32.const 72))",
        call("fd_filestat_get", &[1, 104])
    );
    let text = guest(&["fd_filestat_get"], &body, "");
    let preview_0 = text.replace("wasi_snapshot_preview1", "wasi_unstable");
    // Preview 0 counts links in 32 bits.
    for (text, len) in [(text, 64), (preview_0, 56)] {
        let (errno, stat) = connect_at(&text, Instant::ZERO, RoomOptions::default());
        assert_eq!(errno, SUCCESS);
        assert_eq!(stat[16], 2, "a character device");
        let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        assert!(zeros(&stat[..16]) && zeros(&stat[17..len]));
        assert!(stat[len..].iter().all(|byte| *byte == 0xaa));
    }
    assert_eq!(errnos("fd_filestat_get", &[&[3, 104]]), [EBADF]);
}

#[test]
fn standard_input_is_at_its_end() {
    let (errno, bytes_read) = errno_and_memory("fd_read", &[0, 0, 0, 104], 104, 4);
    assert_eq!((errno, bytes_read), (SUCCESS, vec![0; 4]));
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
        // The monotonic clock starts at one second: zero is refused by some runtimes.
        (1, 1_000_000_000 + 123_456_789_012),
        // The CPU time of a process and of a thread.
        (2, 1_000_000_000 + 123_456_789_012),
        (3, 1_000_000_000 + 123_456_789_012),
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
fn a_start_function_runs_at_the_time_of_the_opening_of_its_room() {
    let read = |clock, ptr| format!("(drop {})", call("clock_time_get", &[clock, 0, ptr]));
    let start = read(0, 512) + &read(1, 520) + "(call $set_timer (i32.const 3000))";
    let show = "(call $send_binary (i32.const 0) (i32.const 512) (i32.const 16))";
    let text = guest_0_2(
        &(ENV.to_owned() + &import("clock_time_get")),
        &[("initialize", show), ("timer", show)],
        &format!("(func $start {start}) (start $start)"),
    );
    let clock = WallClock::default();
    let mut host = Host::new(&clock, RecordingTransport::new());
    // The room is opened six seconds after the host.
    clock.0.set(Instant::from_millis(6_000));
    host.open("", &module(&text)).unwrap();
    let sent = |host: &Host<_, RecordingTransport>| host.transport().sent.len();
    assert_eq!(
        host.poll(Budget::UNLIMITED),
        Some(Instant::from_millis(9_000))
    );
    assert_eq!(sent(&host), 1);
    let times = [1_700_000_006_000_000_000_u64, 1_000_000_000];
    let expected = times.map(u64::to_le_bytes).concat();
    assert_eq!(
        host.transport().sent[0].payload,
        OwnedPayload::Bytes(expected)
    );
    clock.0.set(Instant::from_millis(8_999));
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&host), 1, "the timer is not due");
    clock.0.set(Instant::from_millis(9_000));
    host.poll(Budget::UNLIMITED);
    assert_eq!(sent(&host), 2);
}

/// A clock of a host that started in November 2023.
#[derive(Default)]
struct WallClock(ManualClock);

impl Clock for WallClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn unix_time_at_zero(&self) -> Option<Duration> {
        Some(Duration::from_secs(1_700_000_000))
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
    for clock in [4, -1] {
        assert_eq!(errnos("clock_time_get", &[&[clock, 0, 100]]), [EINVAL]);
        assert_eq!(errnos("clock_res_get", &[&[clock, 100]]), [EINVAL]);
    }
}

#[test]
fn only_the_standard_streams_exist() {
    // fd_datasync, fd_fdstat_set_flags, fd_sync, fd_filestat_get and poll_fd_readwrite.
    let common = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27;
    let (read, write) = (1 << 1, 1 << 6);
    // What is written is appended.
    for (fd, flags, expected) in [(0, 0, read), (1, 1, write), (2, 1, write)] {
        let (errno, stat) = errno_and_memory("fd_fdstat_get", &[fd, 104], 104, 24);
        assert_eq!(errno, SUCCESS);
        assert_eq!(stat[0], 2, "a character device");
        assert_eq!(stat[2..4], [flags, 0]);
        let rights = u64::from_le_bytes(stat[8..16].try_into().unwrap());
        assert_eq!(rights, common | expected);
        assert_eq!(stat[16..], [0; 8], "no rights to inherit");
    }
    for fd in [3, 4, 1000, i64::from(i32::MAX), -1] {
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
    for ptr in bad_pointers(64) {
        assert_eq!(errnos("fd_filestat_get", &[&[1, ptr]]), [EFAULT], "{ptr}");
    }
    for ptr in bad_pointers(4) {
        assert_eq!(errnos("fd_read", &[&[0, 0, 0, ptr]]), [EFAULT], "{ptr}");
    }
    for ptr in bad_pointers(16) {
        assert_eq!(errnos("random_get", &[&[ptr, 16]]), [EFAULT]);
    }
    // Lengths that exceed memory, or wrap.
    let lengths: [&[i64]; 5] = [
        &[1, 65_536],
        &[65_535, 2],
        &[65_536, 1],
        &[0xffff_ffff, 65_536],
        &[0, 0xffff_ffff],
    ];
    assert_eq!(errnos("random_get", &lengths), [EFAULT; 5]);
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
fn random_bytes_fill_any_length_within_memory() {
    const LEN: i64 = 5 * 65_536 - 32;
    let last = "(call $say (i32.load (i32.const 327676)))";
    let body = format!("(call $say {}) {last}", call("random_get", &[32, LEN]));
    let text = guest(&["random_get"], &body, "").replace(
        r#"(memory (export "memory") 1)"#,
        r#"(memory (export "memory") 5)"#,
    );
    let limits = limits(|limits| limits.fuel_per_slice = 10_000);
    let mut room = room(&module_with(&text, &limits));
    let before = room.fuel_used();
    connect(&mut room, 1);
    let [errno, last] = numbers(&mut room, Instant::ZERO).try_into().unwrap();
    assert_eq!(errno, SUCCESS);
    assert_ne!(last, 0);
    // A unit for each byte, though a slice has less.
    let used = room.fuel_used() - before;
    assert!(used >= LEN as u64, "{used}");
}

#[test]
fn a_signal_exits() {
    for (signal, code) in [(1, 129), (6, 134), (9, 137), (30, 158)] {
        let text = guest(
            &["proc_raise"],
            &format!("(drop {})", call("proc_raise", &[signal])),
            "",
        );
        let mut room = room(&module(&text));
        connect(&mut room, 1);
        let cause = FaultCause::Exit { code };
        let during = "connect";
        assert_eq!(room.fault(), Some(&Fault { during, cause }));
    }
    // No signal; and what is none.
    let calls: [&[i64]; 3] = [&[0], &[31], &[-1]];
    assert_eq!(errnos("proc_raise", &calls), [SUCCESS, EINVAL, EINVAL]);
}

#[test]
fn every_call_costs_fuel() {
    for (name, params) in FUNCTIONS {
        if name == "proc_exit" {
            continue;
        }
        let cost = |body: &str| {
            let mut room = room(&module(&guest(&[name], body, "")));
            let before = room.fuel_used();
            connect(&mut room, 1);
            assert_eq!(room.fault(), None, "{name}");
            room.fuel_used() - before
        };
        // Arguments for which some succeed, and some for which most fail.
        for argument in [0, 64, -1] {
            let calls = format!("(drop {})", call(name, &vec![argument; params.len()])).repeat(100);
            let used = cost(&calls) - cost("");
            assert!(used >= 100 * 16, "{name}({argument}, …): {used}");
        }
    }
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
    // Connects have no payload.
    assert_eq!(numbers(&mut room, Instant::ZERO), [1, 2, 3, 4, 2, 5]);
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

/// A guest that prints each binary message to standard output and each text to standard error, and
/// runs `after_text` then.
fn printer(after_text: &str) -> String {
    let print = |fd| {
        let write = r"
            (i32.store (i32.const 32) (local.get 1))
            (i32.store (i32.const 36) (local.get 2))";
        format!("{write} (drop {})", call("fd_write", &[fd, 32, 1, 40]))
    };
    let text = format!("{} {after_text}", print(2));
    let handlers = [("binary", print(1)), ("message", text)];
    let handlers = handlers
        .each_ref()
        .map(|(name, body)| (*name, body.as_str()));
    guest_0_2(&import("fd_write"), &handlers, "")
}

/// Fuel that a room uses to print these texts, each in an event of its own.
fn fuel_to_print(limits: &Limits, texts: &[&[u8]]) -> u64 {
    let mut room = room_of_one(&printer(""), limits);
    let before = room.fuel_used();
    for text in texts {
        send(&mut room, *text);
        outputs(&mut room, Instant::ZERO);
    }
    assert_eq!(room.fault(), None);
    room.fuel_used() - before
}

#[test]
fn printing_is_charged_by_what_it_becomes_in_the_log() {
    let fuel = |text: &[u8]| fuel_to_print(&Limits::default(), &[text]);
    let nothing = fuel(b"");
    let long = [b'x'; 10_000];
    let letter = (fuel(&long) - nothing) / 10_000;
    assert!(letter >= 8, "a byte of the log is more than an instruction");
    // An escape such as \x1b has four letters.
    let control = (fuel(&[0x1b; 10_000]) - nothing) / 10_000;
    assert!((4 * letter..5 * letter).contains(&control), "{control}");
    let line = fuel(b"\n") - nothing;
    assert!(
        line >= 256 * letter,
        "what stands before its text, and a system call"
    );
    assert!(nothing >= line, "each call may end a line");
    // In many calls or in few.
    let (one, ten) = (fuel(&[b'x'; 100]), [&[b'x'; 10][..]; 10]);
    assert!(fuel_to_print(&Limits::default(), &ten) >= one);
}

#[test]
fn printing_uses_the_same_fuel_whether_it_is_logged_or_dropped() {
    let texts = [&b"one\n"[..], &[b'x'; 3000], b"\n\n\xff\x1b", b"rest"];
    let [all, none] = [usize::MAX, 0].map(|bytes| {
        let limits = Limits::new()
            .max_log_bytes_per_event(bytes)
            .max_log_bytes_per_second(bytes);
        fuel_to_print(&limits, &texts)
    });
    assert_eq!(all, none);
}

#[cfg(feature = "log")]
mod printing {
    use super::*;
    use crate::{captured_log, support::limits};
    use log::Level::{Info, Warn};
    use stateroom_wasmi_host::{Backoff, FaultPolicy, Trap};

    /// What guests printed since the last call, with the name of their room.
    fn logged_with_room() -> Vec<(log::Level, String)> {
        let lines = captured_log::take().into_iter();
        lines
            .filter(|line| line.target == "guest")
            .map(|line| (line.level, line.text))
            .collect()
    }

    /// The same without the name of the room.
    fn logged() -> Vec<(log::Level, String)> {
        let without_room = |(level, line): (_, String)| {
            let text = line.strip_prefix("room \"test\": ");
            (level, text.expect("each line names its room").to_owned())
        };
        logged_with_room().into_iter().map(without_room).collect()
    }

    fn logged_text() -> Vec<String> {
        logged().into_iter().map(|(_, text)| text).collect()
    }

    /// A room that prints what it is sent, with client 1.
    fn room_with(limits: &Limits, after_text: &str) -> Room {
        captured_log::start();
        room_of_one(&printer(after_text), limits)
    }

    /// The lines that are logged when a guest prints this, each in an event of its own.
    fn lines(texts: &[&[u8]]) -> Vec<String> {
        let mut room = room_with(&Limits::default(), "");
        texts.iter().for_each(|text| send(&mut room, *text));
        assert_eq!(room.fault(), None);
        logged_text()
    }

    /// Gives a room an event and runs it to its end.
    fn handle(room: &mut Room, now: Instant, event: Event<'_>) {
        room.handle_event(now, event).expect("it is accepted");
        outputs(room, now);
    }

    fn print(room: &mut Room, now: Instant, text: &[u8]) {
        handle(room, now, Event::message(ClientId(1), text));
    }

    #[test]
    fn output_is_logged_by_line() {
        assert_eq!(lines(&[b"hello\n"]), ["hello"]);
        assert_eq!(
            lines(&[b"one line\nand another\n\n"]),
            ["one line", "and another", ""]
        );
    }

    #[test]
    fn each_stream_has_its_level() {
        let mut room = room_with(&Limits::default(), "");
        send(&mut room, &b"hello\n"[..]);
        send(&mut room, "oh no\n");
        let expected = [(Info, "hello"), (Warn, "oh no")];
        assert_eq!(
            logged(),
            expected.map(|(level, text)| (level, text.to_owned()))
        );
    }

    #[test]
    fn lines_name_their_room_however_it_is_called() {
        captured_log::start();
        let module = module(&printer(""));
        let mut room = Room::new(&module, "a\": ok\n\u{202e}", RoomOptions::new()).unwrap();
        connect(&mut room, 1);
        send(&mut room, &b"hello\n"[..]);
        let line = r#"room "a\": ok\n\u{202e}": hello"#;
        assert_eq!(logged_with_room(), [(Info, line.to_owned())]);
    }

    #[test]
    fn an_unfinished_line_is_logged_when_its_event_ends() {
        assert_eq!(lines(&[b"no end"]), ["no end"]);
        assert_eq!(lines(&[b"one ", b"two\nthree"]), ["one ", "two", "three"]);
        assert_eq!(lines(&[b"", b""]), [""; 0]);
    }

    #[test]
    fn an_unfinished_line_is_logged_when_the_guest_fails() {
        let mut room = room_with(&Limits::default(), "(unreachable)");
        send(&mut room, "panicked at lib.rs:7:\nindex out of bounds");
        assert!(room.is_closed());
        assert_eq!(
            logged_text(),
            ["panicked at lib.rs:7:", "index out of bounds"]
        );
    }

    #[test]
    fn an_unfinished_line_is_logged_when_a_room_is_closed_in_the_middle_of_an_event() {
        let mut room = room_with(&limits(|limits| limits.fuel_per_slice = 100), "");
        room.handle_event(Instant::ZERO, Event::message(ClientId(1), "half"))
            .unwrap();
        while captured_log::is_empty() && room.has_work(Instant::ZERO) {
            assert!(room.stats().fuel_used < 1_000_000);
            room.resume(Instant::ZERO);
        }
        room.close();
        assert_eq!(logged_text(), ["half"]);
    }

    #[test]
    fn what_a_failing_start_function_prints_is_logged() {
        captured_log::start();
        let write = call("fd_write", &[2, 32, 1, 40]);
        let more = format!(
            r#"(data (i32.const 32) "\40\00\00\00\04\00\00\00") (data (i32.const 64) "oops")
            (func $start (drop {write}) unreachable) (start $start)"#
        );
        let module = module(&guest_0_2(&import("fd_write"), &[], &more));
        let room = room(&module);
        let cause = room.fault().map(|fault| &fault.cause);
        assert_eq!(cause, Some(&FaultCause::Trap(Trap::Unreachable)));
        assert_eq!(logged(), [(Warn, "oops".to_owned())]);
    }

    #[test]
    fn control_characters_are_escaped_in_the_log() {
        assert_eq!(
            lines(&[b"\x1b[31mred\r\0\xff\xc2\x85\n"]),
            [r"\x1b[31mred\r\x00\xff\u{85}"]
        );
    }

    #[test]
    fn readable_text_is_logged_as_it_is() {
        let text = r#"it's "größer", здравствуйте, 你好, ❤️"#;
        assert_eq!(lines(&[text.as_bytes()]), [text]);
    }

    #[test]
    fn long_lines_are_logged_in_pieces_without_loss() {
        // Characters of one to four bytes, which begin everywhere.
        for text in ["xéε漢🦀", "🦀", "漢", "éx", "x"] {
            for start in ["", "x", "xx", "xxx"] {
                let long = start.to_owned() + &text.repeat(300);
                let pieces = lines(&[long.as_bytes()]);
                assert!(pieces.len() > 1);
                assert_eq!(pieces.concat(), long);
            }
        }
        assert_eq!(
            lines(&[&[b'x'; 256], b"\n"]),
            ["x".repeat(256), String::new()]
        );
        assert_eq!(
            lines(&[&[[b'x'; 256].as_slice(), b"\n"].concat()]),
            ["x".repeat(256)]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_logged_in_pieces_without_loss() {
        for byte in [0x80, 0xbf, 0xc3, 0xe2, 0xf0, 0xff] {
            let expected = format!("\\x{byte:02x}").repeat(1000);
            assert_eq!(lines(&[&[byte; 1000]]).concat(), expected, "{byte:x}");
        }
    }

    /// The number in the note that something was dropped.
    fn dropped(line: &str) -> Option<usize> {
        line.split_once(" bytes that it printed were dropped")?
            .0
            .parse()
            .ok()
    }

    /// Letters of the lines, and bytes that were dropped according to notes.
    fn letters_and_dropped(lines: &[String]) -> (usize, usize) {
        let letters = |line: &&String| line.bytes().all(|byte| byte == b'x');
        let letters = lines.iter().filter(letters).map(String::len).sum();
        (letters, lines.iter().filter_map(|line| dropped(line)).sum())
    }

    fn limits_of(per_event: usize, per_second: usize) -> Limits {
        Limits::new()
            .max_log_bytes_per_event(per_event)
            .max_log_bytes_per_second(per_second)
    }

    #[test]
    fn what_an_event_prints_beyond_its_limit_is_dropped_with_one_note() {
        for printed in [4_096, 51_200] {
            let mut room = room_with(&limits_of(4_000, 4_000), "");
            print(&mut room, Instant::ZERO, &vec![b'x'; printed]);
            assert_eq!(room.fault(), None);
            let lines = logged_text();
            // Lines of 256 letters, which count 320 bytes: twelve of them.
            assert_eq!(letters_and_dropped(&lines), (12 * 256, printed - 12 * 256));
            assert_eq!(lines.len(), 12 + 1);
            assert!(lines[12].contains("4000 bytes an event and 4000 a second"));
        }
    }

    #[test]
    fn empty_lines_and_escapes_count_as_what_they_become() {
        let mut room = room_with(&limits_of(640, 0), "");
        print(&mut room, Instant::ZERO, &[b'\n'; 1000]);
        assert_eq!(
            logged_text().iter().filter(|line| line.is_empty()).count(),
            10
        );
        let mut room = room_with(&limits_of(64 + 40, 0), "");
        print(&mut room, Instant::ZERO, &[0x1b; 10]);
        assert_eq!(logged_text(), [r"\x1b".repeat(10)]);
        let mut room = room_with(&limits_of(64 + 39, 0), "");
        print(&mut room, Instant::ZERO, &[0x1b; 10]);
        assert_eq!(dropped(&logged_text()[0]), Some(10));
    }

    #[test]
    fn an_endless_printer_logs_no_more_than_its_limit() {
        let write = call("fd_write", &[1, 32, 1, 40]);
        let body = format!(
            "(memory.fill (i32.const 1024) (i32.const 120) (i32.const 60000))
            (i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 60000))
            (loop $again (drop {write}) (br $again))"
        );
        captured_log::start();
        let mut room = room_of_one(
            &guest_0_2(&import("fd_write"), &[("message", &body)], ""),
            &Limits::new(),
        );
        handle(&mut room, Instant::ZERO, Event::message(ClientId(1), "go"));
        let fault = room.fault().expect("it has no fuel left");
        assert!(matches!(fault.cause, FaultCause::OutOfFuel { .. }));
        let lines = logged_text();
        let logged: usize = lines.iter().map(String::len).sum();
        assert!(
            logged <= Limits::new().max_log_bytes_per_event + 200,
            "{logged}"
        );
        // Fuel bounds what the host has to look at, too.
        let (_, dropped) = letters_and_dropped(&lines);
        assert!(dropped < 10_000_000, "{dropped}");
    }

    #[test]
    fn printing_is_limited_over_time() {
        let mut room = room_with(&limits_of(10 * 164, 164), "");
        let line = [[b'x'; 100].as_slice(), b"\n"].concat();
        let mut print = |millis| {
            print(&mut room, Instant::from_millis(millis), &line);
            logged_text()
        };
        for _ in 0..10 {
            assert_eq!(letters_and_dropped(&print(0)), (100, 0));
        }
        assert_eq!(letters_and_dropped(&print(0)), (0, 100));
        // A second's worth is one line; there is one note a second.
        assert_eq!(print(500), [""; 0]);
        assert_eq!(print(999), [""; 0]);
        assert_eq!(letters_and_dropped(&print(1_001)), (100, 200));
        assert_eq!(print(1_002), [""; 0]);
        // After a long time no more than one event's.
        for i in 0..11 {
            let (letters, _) = letters_and_dropped(&print(3_600_000));
            assert_eq!(letters, if i < 10 { 100 } else { 0 }, "{i}");
        }
    }

    #[test]
    fn small_gains_add_up() {
        // A line each second, in steps of a millisecond which each bring a fraction of a byte.
        let mut room = room_with(&limits_of(74, 74), "");
        let mut lines = 0;
        for millis in 0..10_500 {
            print(&mut room, Instant::from_millis(millis), b"0123456789\n");
            lines += logged_text()
                .iter()
                .filter(|line| *line == "0123456789")
                .count();
        }
        assert_eq!(lines, 11);
    }

    #[test]
    fn a_room_that_restarts_has_no_new_allowance() {
        captured_log::start();
        let policy = FaultPolicy::Restart(Backoff::new().first(Duration::ZERO));
        let options = RoomOptions::new().on_fault(policy);
        let module = crate::support::module_with(&printer("(unreachable)"), &limits_of(640, 0));
        let mut room = Room::new(&module, "test", options).unwrap();
        let mut now = Instant::ZERO;
        handle(&mut room, now, Event::Connect(ClientId(1)));
        let text = "x".repeat(100);
        for _ in 0..5 {
            handle(&mut room, now, Event::message(ClientId(1), text.as_str()));
            now = room.poll_timeout().expect("it restarts");
            room.handle_timeout(now);
            outputs(&mut room, now);
        }
        assert_eq!(room.stats().faults, 5);
        // Three lines of 164 bytes. Of the two that are dropped, a note comes at once and one when the
        // room ends.
        assert_eq!(letters_and_dropped(&logged_text()), (300, 100));
        drop(room);
        assert_eq!(letters_and_dropped(&logged_text()), (0, 100));
    }

    #[cfg(feature = "snapshot")]
    #[test]
    fn a_room_that_rolls_back_has_no_new_allowance_and_repeats_nothing() {
        use crate::support::assemble;
        use stateroom_wasmi_host::{LoadOptions, Module};
        captured_log::start();
        let write = call("fd_write", &[1, 48, 1, 40]);
        // The start function prints, and each event that a rollback replays.
        let start = format!(
            r#"(data (i32.const 48) "\40\00\00\00\06\00\00\00") (data (i32.const 64) "start\n")
            (func $start (drop {write})) (start $start) (memory"#
        );
        let text = printer("(unreachable)").replacen("(memory", &start, 1);
        let options = LoadOptions::new().snapshots(true);
        let module = Module::load_with(&assemble(&text), &limits_of(640, 0), options).unwrap();
        let options = RoomOptions::new().on_fault(FaultPolicy::Rollback);
        let mut room = Room::new(&module, "test", options).unwrap();
        handle(&mut room, Instant::ZERO, Event::Connect(ClientId(1)));
        print(&mut room, Instant::ZERO, b"logged\n");
        assert_eq!(logged_text(), ["start", "logged"]);
        let text = "x".repeat(100);
        for _ in 0..5 {
            handle(
                &mut room,
                Instant::ZERO,
                Event::message(ClientId(1), text.as_str()),
            );
        }
        assert_eq!(room.stats().faults, 5);
        // After 69 and 70 bytes, three lines of 164.
        drop(room);
        let lines = logged_text();
        assert_eq!(letters_and_dropped(&lines), (300, 200));
        assert!(!lines.iter().any(|line| line == "start" || line == "logged"));
    }
}
