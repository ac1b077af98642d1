//! The ABI check when a module is loaded, and the other reasons to reject a module.

use crate::support::{
    ENV, assemble, connect, echo, guest_0_2, guest_0_4, limits, module, outputs, room, send,
};
use ValueType::{I32, I64};
use stateroom_wasmi_host::{
    Compilation, Fault, FaultCause, Instant, Limits, LoadError, Module, Room, RoomOptions, Trap,
    abi::{AbiProblem, AbiVersion, ExternKind, Signature, ValueType},
};

fn load(text: &str) -> Result<Module, LoadError> {
    Module::load(&assemble(text), &Limits::default())
}

/// All ABI problems of a module.
fn problems(text: &str) -> Vec<AbiProblem> {
    match load(text) {
        Err(LoadError::Abi { problems, .. }) => problems,
        other => panic!("{other:?} is not an ABI error"),
    }
}

/// The only ABI problem of a module.
fn problem(text: &str) -> AbiProblem {
    let [problem] = problems(text).try_into().expect("there is one problem");
    problem
}

fn func(params: &[ValueType], results: &[ValueType]) -> ExternKind {
    ExternKind::Func(Signature {
        params: params.to_vec(),
        results: results.to_vec(),
    })
}

fn without(text: &str, export: &str) -> String {
    let stripped = text.replace(&format!("(export \"{export}\")"), "");
    assert_ne!(stripped, text, "there is no export {export}");
    stripped
}

/// Each function that an ABI requires, with its signature (from the documented ABI).
fn required_exports(abi: AbiVersion) -> Vec<(&'static str, ExternKind)> {
    match abi {
        AbiVersion::V0_2 => vec![
            ("jam_malloc", func(&[I32], &[I32])),
            ("jam_free", func(&[I32, I32], &[])),
            ("initialize", func(&[I32, I32], &[])),
            ("connect", func(&[I32], &[])),
            ("disconnect", func(&[I32], &[])),
            ("timer", func(&[], &[])),
            ("message", func(&[I32, I32, I32], &[])),
            ("binary", func(&[I32, I32, I32], &[])),
        ],
        AbiVersion::V0_4 => vec![
            ("stateroom_malloc", func(&[I32], &[I32])),
            ("stateroom_free", func(&[I32, I32], &[])),
            ("stateroom_recv", func(&[I32, I32], &[])),
        ],
    }
}

fn minimal(abi: AbiVersion) -> String {
    match abi {
        AbiVersion::V0_2 => guest_0_2("", &[], ""),
        AbiVersion::V0_4 => guest_0_4("", ""),
    }
}

#[test]
fn a_minimal_module_of_each_abi_is_accepted() {
    for abi in [AbiVersion::V0_2, AbiVersion::V0_4] {
        assert_eq!(module(&minimal(abi)).abi(), abi);
    }
    assert_eq!(
        [AbiVersion::V0_2, AbiVersion::V0_4].map(|abi| abi.to_string()),
        ["0.2", "0.4"]
    );
}

#[test]
fn each_missing_export_is_named() {
    for abi in [AbiVersion::V0_2, AbiVersion::V0_4] {
        let required = required_exports(abi)
            .into_iter()
            .chain([("memory", ExternKind::Memory)]);
        for (name, expected) in required {
            if name == "stateroom_recv" {
                // Its malloc and free still identify the ABI.
                let text = without(&minimal(abi), name);
                assert!(matches!(
                    load(&text),
                    Err(LoadError::Abi {
                        abi: Some(AbiVersion::V0_4),
                        ..
                    })
                ));
            }
            let found = problem(&without(&minimal(abi), name));
            assert_eq!(
                found,
                AbiProblem::MissingExport {
                    name,
                    expected: expected.clone()
                }
            );
            assert_eq!(
                found.to_string(),
                format!("export `{name}` is missing; it must be {expected}")
            );
        }
    }
}

#[test]
fn each_export_of_a_wrong_type_is_named_with_both_types() {
    for abi in [AbiVersion::V0_2, AbiVersion::V0_4] {
        for (name, expected) in required_exports(abi) {
            let text = without(&minimal(abi), name);
            let other = format!("(func (export \"{name}\") (result f64) (f64.const 0)))");
            let text = text.strip_suffix(')').expect("a module ends").to_owned() + &other;
            let found = func(&[], &[ValueType::F64]);
            assert_eq!(
                problem(&text),
                AbiProblem::WrongExport {
                    name,
                    expected,
                    found
                }
            );
        }
    }
}

#[test]
fn exports_of_another_kind_are_wrong_exports() {
    let text = without(&minimal(AbiVersion::V0_2), "timer").replacen(
        "(memory (export \"memory\") 1)",
        r#"(memory 1) (global (export "memory") i64 (i64.const 0)) (table (export "timer") 1 funcref)"#,
        1,
    );
    let wrong = |name, expected, found| AbiProblem::WrongExport {
        name,
        expected,
        found,
    };
    assert_eq!(
        problems(&text),
        [
            wrong("memory", ExternKind::Memory, ExternKind::Global(I64)),
            wrong("timer", func(&[], &[]), ExternKind::Table),
        ]
    );
    assert_eq!(
        problems(&text)[1].to_string(),
        "export `timer` must be a function () -> (), but is a table"
    );
}

#[test]
fn optional_exports_must_have_the_right_type() {
    let text = guest_0_2(
        "",
        &[],
        r#"(func (export "_initialize") (result i32) (i32.const 0))"#,
    );
    let (name, expected, found) = ("_initialize", func(&[], &[]), func(&[], &[I32]));
    assert_eq!(
        problem(&text),
        AbiProblem::WrongExport {
            name,
            expected,
            found
        }
    );

    for name in ["JAMSOCKET_API_VERSION", "JAMSOCKET_API_PROTOCOL"] {
        let text = guest_0_2(
            "",
            &[],
            &format!(r#"(global (export "{name}") i64 (i64.const 0))"#),
        );
        let (expected, found) = (ExternKind::Global(I32), ExternKind::Global(I64));
        assert_eq!(
            problem(&text),
            AbiProblem::WrongExport {
                name,
                expected,
                found
            }
        );
    }
    // The names of the other ABI are ignored.
    module(&guest_0_2(
        "",
        &[],
        r#"(global (export "STATEROOM_API_VERSION") i64 (i64.const 0))"#,
    ));
}

#[test]
fn imports_outside_the_abi_are_unknown() {
    for (imports, module, name, found) in [
        (
            r#"(import "env" "fly" (func (param i64) (result i32)))"#,
            "env",
            "fly",
            func(&[I64], &[I32]),
        ),
        (
            r#"(import "env" "stateroom_send" (func (param i32 i32)))"#,
            "env",
            "stateroom_send",
            func(&[I32, I32], &[]),
        ),
        (r#"(import "" "" (func))"#, "", "", func(&[], &[])),
        (
            r#"(import "wasi_unstable" "sock_accept" (func (param i32 i32 i32) (result i32)))"#,
            "wasi_unstable",
            "sock_accept",
            func(&[I32, I32, I32], &[I32]),
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_dup" (func))"#,
            "wasi_snapshot_preview1",
            "fd_dup",
            func(&[], &[]),
        ),
        (
            r#"(import "env" "table" (table 1 funcref))"#,
            "env",
            "table",
            ExternKind::Table,
        ),
        (
            r#"(import "env" "__stack_pointer" (global (mut i32)))"#,
            "env",
            "__stack_pointer",
            ExternKind::Global(I32),
        ),
    ] {
        let found = AbiProblem::UnknownImport {
            module: module.to_owned(),
            name: name.to_owned(),
            found,
        };
        assert_eq!(problem(&guest_0_2(imports, &[], "")), found);
    }
    let text = guest_0_2(
        r#"(import "env" "fly" (func (param i64 f32) (result i32 i32)))"#,
        &[],
        "",
    );
    assert_eq!(
        problem(&text).to_string(),
        r#"import "env" "fly" (a function (i64, f32) -> (i32, i32)) is unknown to this ABI"#
    );
}

#[test]
fn a_memory_cannot_be_imported() {
    let text = guest_0_2(r#"(import "env" "memory" (memory 1))"#, &[], "").replace(
        "(memory (export \"memory\") 1)",
        r#"(export "memory" (memory 0))"#,
    );
    let (module, name) = ("env".to_owned(), "memory".to_owned());
    assert_eq!(
        problem(&text),
        AbiProblem::UnknownImport {
            module,
            name,
            found: ExternKind::Memory
        }
    );
}

#[test]
fn the_functions_of_the_other_abi_are_unknown() {
    let text = guest_0_4("", "").replace("(module", &format!("(module {ENV}"));
    let problems = problems(&text);
    assert_eq!(problems.len(), 3);
    for (problem, name) in problems
        .iter()
        .zip(["send_message", "send_binary", "set_timer"])
    {
        assert!(matches!(problem, AbiProblem::UnknownImport { name: n, .. } if n == name));
    }
}

#[cfg(feature = "wasi")]
#[test]
fn imports_of_a_wrong_type_are_named_with_both_types() {
    let i32s = |n: usize| func(&vec![I32; n], &[]);
    for (module, name, expected) in [
        ("env", "send_message", i32s(3)),
        ("env", "send_binary", i32s(3)),
        ("env", "set_timer", i32s(1)),
        (
            "wasi_snapshot_preview1",
            "random_get",
            func(&[I32, I32], &[I32]),
        ),
        (
            "wasi_snapshot_preview1",
            "clock_time_get",
            func(&[I32, I64, I32], &[I32]),
        ),
        ("wasi_snapshot_preview1", "proc_exit", i32s(1)),
    ] {
        let text = guest_0_2(
            &format!(r#"(import "{module}" "{name}" (func (param i64)))"#),
            &[],
            "",
        );
        let found = func(&[I64], &[]);
        let (module, name) = (module.to_owned(), name.to_owned());
        assert_eq!(
            problem(&text),
            AbiProblem::WrongImport {
                module,
                name,
                expected,
                found
            }
        );
    }
    let text = guest_0_2(r#"(import "env" "set_timer" (global i32))"#, &[], "");
    assert_eq!(
        problem(&text).to_string(),
        r#"import "env" "set_timer" is a function (i32) -> (), but the module wants a global i32"#
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = guest_0_2(r#"(import "env" "fly" (func))"#, &[], "");
    let text = without(&without(&text, "timer"), "binary");
    let text = text.replace(
        r#"(func (export "connect") (param i32)"#,
        r#"(func (export "connect") (param i64)"#,
    );
    let error = load(&text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the module does not fit the Stateroom ABI 0.2:\
         \n  - export `connect` must be a function (i32) -> (), but is a function (i64) -> ()\
         \n  - export `timer` is missing; it must be a function () -> ()\
         \n  - export `binary` is missing; it must be a function (i32, i32, i32) -> ()\
         \n  - import \"env\" \"fly\" (a function () -> ()) is unknown to this ABI"
    );
    assert!(
        matches!(error, LoadError::Abi { abi: Some(AbiVersion::V0_2), problems } if problems.len() == 4)
    );
}

#[test]
fn the_abi_is_detected_from_the_exports() {
    let abi_of = |exports: &str| match load(&format!("(module (memory 1) (func $f) {exports})")) {
        Err(LoadError::Abi { abi, problems }) => (abi, problems),
        other => panic!("{other:?}"),
    };
    let export = |name: &str| format!("(export \"{name}\" (func $f))");
    for (name, _) in required_exports(AbiVersion::V0_2) {
        assert_eq!(abi_of(&export(name)).0, Some(AbiVersion::V0_2), "{name}");
        let both = export(name) + &export("stateroom_recv");
        assert_eq!(
            abi_of(&both).0,
            Some(AbiVersion::V0_4),
            "{name} beside stateroom_recv"
        );
    }
    for (name, _) in required_exports(AbiVersion::V0_4) {
        assert_eq!(abi_of(&export(name)).0, Some(AbiVersion::V0_4), "{name}");
    }
    for exports in [
        "",
        "(export \"memory\" (memory 0))",
        "(export \"main\" (func $f))",
    ] {
        assert_eq!(abi_of(exports), (None, vec![AbiProblem::NotARoom]));
    }
    assert_eq!(
        load("(module)").unwrap_err().to_string(),
        "the module is not a room:\n  - the module exports neither `stateroom_recv` (ABI 0.4) nor \
         `jam_malloc`, `initialize`, `message` … (ABI 0.2): it is not a Stateroom room"
    );
}

#[test]
fn a_command_is_pointed_out() {
    let start = r#"(func (export "_start"))"#;
    let is_command = |text: &str| problems(text).contains(&AbiProblem::Command);
    let none = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
    assert_eq!(
        problems(none),
        [AbiProblem::NotARoom, AbiProblem::Command],
        "a program with a main function"
    );
    assert!(is_command(&without(&guest_0_2("", &[], start), "timer")));
    // A reactor, and a module whose author did not mean to export `_start` as WASI means it.
    let reactor = format!(r#"{start} (func (export "_initialize"))"#);
    assert!(!is_command(&without(
        &guest_0_2("", &[], &reactor),
        "timer"
    )));
    assert!(!is_command("(module)"));
    assert!(
        load(&guest_0_2("", &[], start)).is_ok(),
        "nothing is missing"
    );
}

/// A guest of ABI 0.2 that also exports the functions of ABI 0.4.
fn guest_of_both(imports: &str, more: &str) -> String {
    let exports = r#"
        (func (export "stateroom_malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "stateroom_free") (param i32 i32))
        (func (export "stateroom_recv") (param i32 i32))"#;
    guest_0_2(imports, &[], &(exports.to_owned() + more))
}

#[test]
fn imports_decide_which_of_two_abis_serves_a_module() {
    let send = r#"(import "env" "stateroom_send" (func (param i32 i32)))"#;
    for (imports, abi) in [
        (ENV, AbiVersion::V0_2),
        (send, AbiVersion::V0_4),
        // The newer, if there are none of either.
        ("", AbiVersion::V0_4),
        #[cfg(feature = "wasi")]
        (
            r#"(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#,
            AbiVersion::V0_4,
        ),
    ] {
        assert_eq!(module(&guest_of_both(imports, "")).abi(), abi, "{imports}");
    }
    // A module that needs another function is reported as one of the ABI that it imports from.
    let unknown = r#"(import "env" "fly" (func))"#;
    for (imports, abi, count) in [
        (ENV.to_owned(), AbiVersion::V0_2, 1),
        (send.to_owned(), AbiVersion::V0_4, 1),
        (send.to_owned() + ENV, AbiVersion::V0_4, 4),
    ] {
        match load(&guest_of_both(&(imports + unknown), "")) {
            Err(LoadError::Abi {
                abi: found,
                problems,
            }) => assert_eq!((found, problems.len()), (Some(abi), count)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_module_is_served_by_the_abi_that_it_conforms_to() {
    // An export of the other ABI has the wrong type, or a wrong version.
    let broken = guest_of_both("", "").replace(
        r#"(func (export "stateroom_recv") (param i32 i32))"#,
        r#"(func (export "stateroom_recv") (param i64))"#,
    );
    assert_eq!(module(&broken).abi(), AbiVersion::V0_2);
    let version = r#"(data (i32.const 32) "\02")
        (global (export "STATEROOM_API_VERSION") i32 (i32.const 32))"#;
    let module = module(&guest_of_both("", version));
    assert_eq!(module.abi(), AbiVersion::V0_2);
    assert_eq!(room(&module).fault(), None);
}

/// A guest with version globals at 32 and 36, whose values `more` writes.
fn versioned(abi: AbiVersion, more: &str) -> String {
    let prefix = if abi == AbiVersion::V0_2 {
        "JAMSOCKET"
    } else {
        "STATEROOM"
    };
    let globals = format!(
        r#"(global (export "{prefix}_API_VERSION") i32 (i32.const 32))
           (global (export "{prefix}_API_PROTOCOL") i32 (i32.const 36))"#
    );
    match abi {
        AbiVersion::V0_2 => guest_0_2("", &[], &(globals + more)),
        AbiVersion::V0_4 => guest_0_4("", &(globals + more)),
    }
}

#[test]
fn wrong_versions_in_the_data_are_found_when_the_module_is_loaded() {
    for (abi, names) in [
        (
            AbiVersion::V0_2,
            ["JAMSOCKET_API_VERSION", "JAMSOCKET_API_PROTOCOL"],
        ),
        (
            AbiVersion::V0_4,
            ["STATEROOM_API_VERSION", "STATEROOM_API_PROTOCOL"],
        ),
    ] {
        let data = r#"(data (i32.const 30) "\00\00\02\00\00\00\ff\ff\ff\ff")"#;
        let wrong = |name, expected, found| AbiProblem::WrongVersion {
            name,
            expected,
            found,
        };
        assert_eq!(
            problems(&versioned(abi, data)),
            [wrong(names[0], 1, 2), wrong(names[1], 0, -1)]
        );
        let data = r#"(data (i32.const 32) "\00\01\00\00") (data (i32.const 36) "\00\00\00\00")"#;
        assert_eq!(
            problem(&versioned(abi, data)).to_string(),
            format!("`{}` is 256, but this host speaks 1", names[0])
        );
        module(&versioned(
            abi,
            r#"(data (i32.const 32) "\01\00\00\00\00\00\00\00")"#,
        ));
    }
}

#[test]
fn a_version_is_pieced_together_from_data_segments() {
    let data = r#"(data (i32.const 33) "\01\00\00") (data (i32.const 28) "xxxx\02")"#;
    let found = problem(&versioned(AbiVersion::V0_2, data));
    let name = "JAMSOCKET_API_VERSION";
    assert_eq!(
        found,
        AbiProblem::WrongVersion {
            name,
            expected: 1,
            found: 0x0102
        }
    );
    // The last bytes of the address space; a room would not be opened.
    for address in [-1, -4, i32::MIN] {
        let text = versioned(AbiVersion::V0_2, "")
            .replace("i32.const 32", &format!("i32.const {address}"));
        assert!(room(&module(&text)).is_closed());
    }
}

#[test]
fn a_later_data_segment_may_write_the_version() {
    let data = r#"(data (i32.const 32) "\07\00\00\00") (data (i32.const 32) "\01\00\00\00")"#;
    let room = room(&module(&versioned(AbiVersion::V0_2, data)));
    assert_eq!(room.fault(), None);
}

#[test]
fn wrong_versions_written_at_run_time_are_found_when_a_room_is_opened() {
    let passive = r#"(data $d "\03\00\00\00")
        (func $start (memory.init $d (i32.const 32) (i32.const 0) (i32.const 4))) (start $start)"#;
    let store = "(func $start (i32.store (i32.const 32) (i32.const 3))) (start $start)";
    let offset = r#"(data (offset (i32.add (i32.const 30) (i32.const 2))) "\03\00\00\00")"#;
    for (abi, name, during) in [
        (AbiVersion::V0_2, "JAMSOCKET_API_VERSION", "initialize"),
        (AbiVersion::V0_4, "STATEROOM_API_VERSION", "stateroom_recv"),
    ] {
        for more in [passive, store, offset, ""] {
            let found = if more.is_empty() { 0 } else { 3 };
            let room = room(&module(&versioned(abi, more)));
            let cause = FaultCause::WrongVersion {
                name,
                expected: 1,
                found,
            };
            assert_eq!(room.fault(), Some(&Fault { during, cause }), "{more}");
        }
    }
    let right = store.replace("(i32.const 3)", "(i32.const 1)");
    assert_eq!(
        room(&module(&versioned(AbiVersion::V0_2, &right))).fault(),
        None
    );
}

#[test]
fn a_module_may_be_as_long_as_the_limit_and_no_longer() {
    let wasm = assemble(&echo());
    let bytes = wasm.len();
    Module::load(&wasm, &limits(|limits| limits.max_module_bytes = bytes)).unwrap();
    let limit = bytes - 1;
    let error = Module::load(&wasm, &limits(|limits| limits.max_module_bytes = limit)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the module is {bytes} bytes long, more than the limit of {limit}")
    );
    let huge = vec![0; 100 << 20];
    assert!(matches!(
        Module::load(&huge, &Limits::default()),
        Err(LoadError::TooLarge { .. })
    ));
}

#[test]
fn a_module_truncated_anywhere_is_rejected() {
    let wasm = assemble(&guest_0_2(
        r#"(import "env" "set_timer" (func (param i32)))"#,
        &[],
        "",
    ));
    for len in 0..wasm.len() {
        for compilation in [Compilation::Lazy, Compilation::Eager] {
            let error =
                Module::load_with(&wasm[..len], &Limits::default(), compilation).unwrap_err();
            // Eight bytes are an empty module.
            assert!(
                matches!(error, LoadError::Invalid(_)) || len >= 8,
                "{len}: {error}"
            );
        }
    }
}

#[test]
fn bytes_that_are_not_a_module_are_rejected_with_a_source() {
    for bytes in [
        &b""[..],
        b"\0",
        b"GIF89a",
        b"(module)",
        b"\0asm",
        b"\0asm\x01\0\0",
        b"\0asm\x02\0\0\0",
        // A component.
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x01\0\0\0\xff",
    ] {
        let error = Module::load(bytes, &Limits::default()).unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{bytes:?}: {error}");
        assert!(
            error.to_string().contains("not valid WebAssembly"),
            "{error}"
        );
        let source = std::error::Error::source(&error).expect("the error of wasmi is kept");
        assert!(!source.to_string().is_empty());
    }
}

#[test]
fn a_module_with_any_byte_changed_does_not_panic() {
    let wasm = assemble(&echo());
    // Little fuel, since a changed guest may loop.
    let limits = limits(|limits| {
        limits.max_fuel_per_event = Some(10_000);
        limits.max_memory_bytes = 1 << 20;
    });
    let mut opened = 0;
    for at in 0..wasm.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = wasm.clone();
            changed[at] ^= change;
            for compilation in [Compilation::Lazy, Compilation::OnDemand] {
                let Ok(module) = Module::load_with(&changed, &limits, compilation) else {
                    continue;
                };
                let opened_room = Room::new(&module, "id", RoomOptions::default());
                let Ok(mut room) = opened_room else { continue };
                opened += 1;
                let _ = room.handle_event(
                    Instant::ZERO,
                    stateroom_wasmi_host::Event::Connect(1.into()),
                );
                outputs(&mut room, Instant::ZERO);
            }
        }
    }
    assert!(opened > 0, "some changed modules still open");
}

#[test]
fn a_hundred_thousand_functions_are_accepted() {
    let many = "(func)".repeat(100_000);
    assert_eq!(room(&module(&guest_0_2("", &[], &many))).fault(), None);
}

/// An invalid function shows whether a module was translated when it was loaded.
#[test]
fn large_modules_are_compiled_when_loaded() {
    let invalid = |code_bytes: usize| {
        let large = format!("(func {})", "nop ".repeat(code_bytes));
        let mut wasm = assemble(&guest_0_2("", &[("timer", "nop nop nop nop")], &large));
        let nops = wasm
            .windows(6)
            .rposition(|bytes| bytes == [0, 1, 1, 1, 1, 0x0b]);
        // `drop` without an operand.
        wasm[nops.expect("the handler of the timer") + 1] = 0x1a;
        Module::load_with(&wasm, &Limits::default(), Compilation::OnDemand)
    };
    assert!(invalid(255 << 10).is_ok(), "it is not looked at");
    assert!(matches!(invalid(256 << 10), Err(LoadError::Invalid(_))));
}

#[test]
fn deeply_nested_blocks_do_not_overflow_the_stack() {
    let deep = "block ".repeat(20_000) + &"end ".repeat(20_000);
    let wasm = assemble(&guest_0_2("", &[("connect", &deep)], ""));
    for compilation in [Compilation::Lazy, Compilation::Eager] {
        // A limit of the interpreter may reject it.
        let Ok(module) = Module::load_with(&wasm, &Limits::default(), compilation) else {
            continue;
        };
        let mut room = room(&module);
        connect(&mut room, 1);
        send(&mut room, "still there");
        assert_eq!(room.fault(), None);
    }
}

#[test]
fn lazy_and_eager_compilation_reject_the_same_invalid_code() {
    // An uncalled function whose body returns nothing where it must return a number.
    let mut wasm = assemble(&guest_0_2("", &[], "(func (result i32) (i32.const 7))"));
    let body = [0x41, 7, 0x0b];
    let at = wasm
        .windows(3)
        .position(|window| window == body)
        .expect("the body is there");
    wasm[at..at + 2].copy_from_slice(&[0x01, 0x01]);
    for compilation in [Compilation::Lazy, Compilation::Eager] {
        let loaded = Module::load_with(&wasm, &Limits::default(), compilation);
        assert!(
            matches!(loaded, Err(LoadError::Invalid(_))),
            "{compilation:?}"
        );
    }
}

#[test]
fn invalid_code_compiled_on_demand_is_a_fault_when_called() {
    let invalid = "(drop (i32.add (i32.const 1)))";
    let wasm = assemble(&guest_0_2(
        ENV,
        &[
            ("timer", invalid),
            ("binary", "(call $set_timer (i32.const 1))"),
        ],
        "",
    ));
    assert!(matches!(
        Module::load(&wasm, &Limits::default()),
        Err(LoadError::Invalid(_))
    ));
    let module = Module::load_with(&wasm, &Limits::default(), Compilation::OnDemand)
        .expect("function bodies are not validated");
    let mut room = room(&module);
    connect(&mut room, 1);
    send(&mut room, b"set the timer");
    assert_eq!(room.fault(), None);
    room.handle_timeout(Instant::from_millis(1));
    let cause = FaultCause::InvalidFunction;
    assert_eq!(
        room.fault(),
        Some(&Fault {
            during: "timer",
            cause
        })
    );
}

#[cfg(feature = "simd")]
#[test]
fn lane_stores_that_wasmi_misreads_are_rejected() {
    use stateroom_wasmi_host::LoadOptions;

    for width in [8, 16] {
        let guest = |offset: u32| {
            let store =
                format!("local.get 0 local.get 1 nop v128.store{width}_lane offset={offset} 1");
            let connect = format!("(local v128) (local.set 1 (i8x16.splat (i32.const 7))) {store}");
            let text = guest_0_2("", &[("connect", &connect)], "");
            assemble(&text.replace(
                "(memory (export \"memory\") 1)",
                "(memory (export \"memory\") 3)",
            ))
        };
        let load = |wasm: &[u8], options| Module::load_with(wasm, &Limits::default(), options);
        let simd = LoadOptions::new().simd(true);
        let refused = |wasm: &[u8]| match load(wasm, simd) {
            Err(LoadError::Misread { instruction }) => {
                instruction == format!("v128.store{width}_lane")
            }
            _ => false,
        };
        let mut room = room(&load(&guest(65_535), simd).expect("the offset is read correctly"));
        connect(&mut room, 1);
        assert_eq!(room.fault(), None);
        assert!(refused(&guest(65_536)) && refused(&guest(u32::MAX)));
        // The same instruction with its opcode encoded in two bytes, and one `nop` less.
        let mut longer = guest(65_536);
        let number = if width == 8 { 0x58 } else { 0x59 };
        let at = longer
            .windows(3)
            .position(|bytes| bytes == [0x01, 0xfd, number])
            .expect("it is there");
        longer[at..at + 3].copy_from_slice(&[0xfd, 0x80 | number, 0]);
        assert!(refused(&longer));
        // Any offset in another memory than the first.
        let second = guest_0_2(
            "",
            &[(
                "connect",
                &format!("(v128.store{width}_lane 1 1 (i32.const 0) (i8x16.splat (i32.const 7)))"),
            )],
            "(memory 1)",
        );
        assert!(refused(&assemble(&second)));
        for compilation in [Compilation::Eager, Compilation::OnDemand] {
            let loaded = load(&guest(65_536), simd.compilation(compilation));
            assert!(matches!(loaded, Err(LoadError::Misread { .. })));
        }
    }
    // A constant whose bytes look like the instruction.
    let constant = "(drop (f64.const nan:0x858fd58fd59fd))";
    let wasm = assemble(&guest_0_2("", &[("timer", constant)], ""));
    let simd = LoadOptions::new().simd(true);
    assert!(Module::load_with(&wasm, &Limits::default(), simd).is_ok());
}

#[test]
fn out_of_bounds_segments_are_found_when_a_room_is_opened() {
    let module = module(&guest_0_2("", &[], r#"(data (i32.const 65535) "ab")"#));
    let room = Room::new(&module, "", RoomOptions::default()).unwrap();
    let expected = Fault {
        during: "instantiate",
        cause: FaultCause::Trap(Trap::MemoryOutOfBounds),
    };
    assert_eq!(room.fault(), Some(&expected));

    let module = module_with_elements_beyond_its_table();
    let room = Room::new(&module, "", RoomOptions::default()).unwrap();
    let expected = Fault {
        during: "instantiate",
        cause: FaultCause::Trap(Trap::TableOutOfBounds),
    };
    assert_eq!(room.fault(), Some(&expected));
}

fn module_with_elements_beyond_its_table() -> Module {
    let more = "(table 1 funcref) (func $f) (elem (i32.const 1) $f)";
    module(&guest_0_2("", &[], more))
}

#[cfg(feature = "wat")]
#[test]
fn the_wat_feature_loads_text() {
    assert!(Module::load_wat(&echo(), &Limits::default()).is_ok());
    let error = Module::load_wat("(module", &Limits::default()).unwrap_err();
    assert!(matches!(error, LoadError::Text(_)));
    assert_eq!(error.to_string(), "not valid WebAssembly text");
}
