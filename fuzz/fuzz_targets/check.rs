//! The ABI check: modules with imports and exports that are nearly right; whether they are accepted
//! is compared with a plain reading of the ABI.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_fuzz::limits;
use stateroom_wasmi_host::{
    Fault, FaultCause, Instant, LoadError, Module, Room, RoomOptions,
    abi::{AbiProblem, AbiVersion},
};
use std::fmt::Write;

fuzz_target!(|data: &[u8]| {
    let Ok(shape) = Shape::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let Some(wasm) = shape.assemble() else { return };
    match Module::load(&wasm, &limits(u64::MAX)) {
        Ok(module) => {
            assert!(shape.fits(module.abi()), "{shape:?}");
            let room = Room::new(&module, "", Instant::ZERO, RoomOptions::default());
            // What load has not seen, since the data are not plain, is seen here.
            if let Ok(room) = room {
                let is_refused = matches!(
                    room.fault(),
                    Some(Fault {
                        cause: FaultCause::WrongVersion { .. } | FaultCause::BadPointer { .. },
                        ..
                    })
                );
                assert!(is_refused || room.is_closed() || shape.has_right_versions(module.abi()));
            }
        }
        Err(LoadError::Abi { abi, problems }) => {
            assert!(!problems.is_empty());
            for (i, problem) in problems.iter().enumerate() {
                assert!(
                    !problems[..i].contains(problem)
                        || matches!(
                            problem,
                            AbiProblem::UnknownImport { .. } | AbiProblem::WrongImport { .. }
                        )
                );
            }
            let is_version =
                |problem: &AbiProblem| matches!(problem, AbiProblem::WrongVersion { .. });
            match abi {
                Some(abi) if problems.iter().all(is_version) => {
                    assert!(!shape.has_right_versions(abi))
                }
                Some(abi) => assert!(!shape.fits(abi), "{shape:?}: {problems:?}"),
                None => assert_eq!(problems, [AbiProblem::NotARoom]),
            }
        }
        Err(error) => panic!("{error:?} for {shape:?}"),
    }
});

/// What a module must export, and may import, with the types as WebAssembly text has them.
const EXPORTS_0_2: [(&str, &str); 8] = [
    ("jam_malloc", "(param i32) (result i32)"),
    ("jam_free", "(param i32 i32)"),
    ("initialize", "(param i32 i32)"),
    ("connect", "(param i32)"),
    ("disconnect", "(param i32)"),
    ("timer", ""),
    ("message", "(param i32 i32 i32)"),
    ("binary", "(param i32 i32 i32)"),
];
const EXPORTS_0_4: [(&str, &str); 3] = [
    ("stateroom_malloc", "(param i32) (result i32)"),
    ("stateroom_free", "(param i32 i32)"),
    ("stateroom_recv", "(param i32 i32)"),
];
const IMPORTS_0_2: [(&str, &str); 3] = [
    ("send_message", "(param i32 i32 i32)"),
    ("send_binary", "(param i32 i32 i32)"),
    ("set_timer", "(param i32)"),
];
const IMPORTS_0_4: [(&str, &str); 1] = [("stateroom_send", "(param i32 i32)")];
const WASI: [(&str, &str); 4] = [
    ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
    ("proc_exit", "(param i32)"),
    ("clock_time_get", "(param i32 i64 i32) (result i32)"),
    (
        "path_open",
        "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    ),
];
const WRONG: [&str; 4] = [
    "",
    "(param i64)",
    "(param i32) (result f32)",
    "(param i32 i32 i32 i32 i32)",
];

/// What becomes of something that a module should have.
#[derive(Clone, Copy, Debug, PartialEq, Arbitrary)]
enum As {
    Right,
    RightToo,
    RightAgain,
    Missing,
    Wrong(u8),
    AnotherKind,
}

impl As {
    fn is_right(self) -> bool {
        matches!(self, Self::Right | Self::RightToo | Self::RightAgain)
    }
}

#[derive(Debug, Arbitrary)]
struct Shape {
    has_memory: bool,
    exports_0_2: Option<[As; 8]>,
    exports_0_4: Option<[As; 3]>,
    imports_0_2: Option<[As; 3]>,
    imports_0_4: Option<[As; 1]>,
    wasi: Option<[As; 4]>,
    reactor: Option<As>,
    unknown_import: Option<u8>,
    /// The addresses of the version numbers of either ABI; they are 1 and 0.
    versions: [Option<u16>; 4],
    data: Vec<(u16, Vec<u8>)>,
}

impl Shape {
    fn fits(&self, abi: AbiVersion) -> bool {
        let right = |all: &[As]| all.iter().all(|one| one.is_right());
        // What is imported must be right; what is not imported is none.
        let is_import = |all: &[As]| all.iter().all(|one| one.is_right() || *one == As::Missing);
        let none = |all: &[As]| all.iter().all(|one| *one == As::Missing);
        let (exports, ours, others) = match abi {
            AbiVersion::V0_2 => (
                self.exports_0_2.as_ref().is_some_and(|all| right(all)),
                self.imports_0_2.as_ref().is_none_or(|all| is_import(all)),
                self.imports_0_4.as_ref().is_none_or(|all| none(all)),
            ),
            AbiVersion::V0_4 => (
                self.exports_0_4.as_ref().is_some_and(|all| right(all)),
                self.imports_0_4.as_ref().is_none_or(|all| is_import(all)),
                self.imports_0_2.as_ref().is_none_or(|all| none(all)),
            ),
        };
        self.has_memory
            && exports
            && ours
            && others
            && self.wasi.as_ref().is_none_or(|all| is_import(all))
            && self
                .reactor
                .is_none_or(|reactor| reactor.is_right() || reactor == As::Missing)
            && self.unknown_import.is_none()
    }

    /// What the numbers are when the data have been written, one after the other.
    fn has_right_versions(&self, abi: AbiVersion) -> bool {
        let mut memory = vec![0; 65_536];
        for (at, bytes) in &self.data {
            let end = usize::from(*at) + bytes.len();
            match memory.get_mut(usize::from(*at)..end) {
                Some(place) => place.copy_from_slice(bytes),
                None => return false,
            }
        }
        let versions = match abi {
            AbiVersion::V0_2 => &self.versions[..2],
            AbiVersion::V0_4 => &self.versions[2..],
        };
        versions.iter().zip([1, 0_u32]).all(|(address, expected)| {
            address.is_none_or(|at| {
                memory.get(usize::from(at)..usize::from(at) + 4) == Some(&expected.to_le_bytes())
            })
        })
    }

    fn assemble(&self) -> Option<Vec<u8>> {
        let (mut imports, mut exports) = (String::new(), String::new());
        let lists: [(&str, &[(&str, &str)], Option<&[As]>); 3] = [
            (
                "env",
                &IMPORTS_0_2,
                self.imports_0_2.as_ref().map(|all| all.as_slice()),
            ),
            (
                "env",
                &IMPORTS_0_4,
                self.imports_0_4.as_ref().map(|all| all.as_slice()),
            ),
            (
                "wasi_snapshot_preview1",
                &WASI,
                self.wasi.as_ref().map(|all| all.as_slice()),
            ),
        ];
        for (module, table, list) in lists {
            for ((name, ty), one) in table.iter().zip(list.unwrap_or_default()) {
                if let Some(what) = written(*one, ty, "") {
                    writeln!(imports, "(import \"{module}\" \"{name}\" {what})").ok()?;
                }
            }
        }
        if let Some(number) = self.unknown_import {
            writeln!(imports, "(import \"env\" \"unknown{number}\" (func))").ok()?;
        }
        let reactor = [self.reactor.unwrap_or(As::Missing)];
        let lists: [(&[(&str, &str)], Option<&[As]>); 3] = [
            (
                &EXPORTS_0_2,
                self.exports_0_2.as_ref().map(|all| all.as_slice()),
            ),
            (
                &EXPORTS_0_4,
                self.exports_0_4.as_ref().map(|all| all.as_slice()),
            ),
            (&[("_initialize", "")], Some(&reactor)),
        ];
        for (table, list) in lists {
            for ((name, ty), one) in table.iter().zip(list.unwrap_or_default()) {
                if let Some(what) = written(*one, ty, name) {
                    writeln!(exports, "{what}").ok()?;
                }
            }
        }
        let names = [
            "JAMSOCKET_API_VERSION",
            "JAMSOCKET_API_PROTOCOL",
            "STATEROOM_API_VERSION",
            "STATEROOM_API_PROTOCOL",
        ];
        for (name, address) in names.iter().zip(self.versions) {
            if let Some(address) = address {
                writeln!(
                    exports,
                    "(global (export \"{name}\") i32 (i32.const {address}))"
                )
                .ok()?;
            }
        }
        let memory = if self.has_memory {
            "(memory (export \"memory\") 1)"
        } else {
            "(memory 1)"
        };
        let mut data = String::new();
        for (at, bytes) in &self.data {
            let bytes: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            writeln!(data, "(data (i32.const {at}) \"{bytes}\")").ok()?;
        }
        wat::parse_str(format!("(module {imports} {memory} {exports} {data})")).ok()
    }
}

/// An import, or an export of a name, as text.
fn written(one: As, ty: &str, export: &str) -> Option<String> {
    let export = if export.is_empty() {
        String::new()
    } else {
        format!("(export \"{export}\")")
    };
    let body = if export.is_empty() { "" } else { "unreachable" };
    Some(match one {
        As::Missing => return None,
        As::AnotherKind if export.is_empty() => "(table 1 funcref)".to_owned(),
        As::AnotherKind => format!("(table {export} 1 funcref)"),
        As::Wrong(which) => {
            let wrong = WRONG[usize::from(which) % WRONG.len()];
            // It may be right by chance.
            let wrong = if wrong == ty {
                "(param i64 i64)"
            } else {
                wrong
            };
            format!("(func {export} {wrong} {body})")
        }
        _ => format!("(func {export} {ty} {body})"),
    })
}
