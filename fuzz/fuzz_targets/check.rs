//! The ABI check: modules whose imports and exports are nearly right are accepted exactly when a
//! direct reading of the ABI accepts them.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_fuzz::limits;
use stateroom_wasmi_host::{
    Fault, FaultCause, LoadError, Module, Room, RoomOptions,
    abi::{AbiProblem, AbiVersion},
};

fuzz_target!(|data: &[u8]| {
    let Ok(shape) = Shape::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let Some(wasm) = shape.assemble() else { return };
    match Module::load(&wasm, &limits(u64::MAX)) {
        Ok(module) => {
            assert!(shape.fits(module.abi()), "{shape:?}");
            let room = Room::new(&module, "", RoomOptions::new());
            // Opening checks the versions that loading could not read from the data segments.
            if let Ok(room) = room {
                let is_refused = matches!(
                    room.fault(),
                    Some(Fault {
                        cause: FaultCause::WrongVersion { .. } | FaultCause::BadPointer { .. },
                        ..
                    })
                );
                assert!(is_refused || room.is_closed() || shape.has_correct_versions(module.abi()));
            }
        }
        Err(LoadError::Abi { abi, problems }) => {
            assert!(!problems.is_empty());
            for abi in [AbiVersion::V0_2, AbiVersion::V0_4] {
                assert!(
                    !(shape.fits(abi) && shape.has_correct_versions(abi)),
                    "{shape:?}"
                );
            }
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
                    assert!(!shape.has_correct_versions(abi))
                }
                Some(abi) => assert!(!shape.fits(abi), "{shape:?}: {problems:?}"),
                None => assert_eq!(problems[0], AbiProblem::NotARoom),
            }
        }
        Err(error) => panic!("{error:?} for {shape:?}"),
    }
});

/// Required exports or allowed imports, with their types in the text format.
type Table = [(&'static str, &'static str)];

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
const WRONG_TYPES: [&str; 4] = [
    "",
    "(param i64)",
    "(param i32) (result f32)",
    "(param i32 i32 i32 i32 i32)",
];

/// How an import or export of the ABI is emitted; `Correct` thrice, so that it is likelier.
#[derive(Clone, Copy, Debug, PartialEq, Arbitrary)]
enum Item {
    Correct,
    Correct2,
    Correct3,
    Missing,
    WrongType(u8),
    WrongKind,
}

impl Item {
    fn is_correct(self) -> bool {
        matches!(self, Self::Correct | Self::Correct2 | Self::Correct3)
    }
}

#[derive(Debug, Arbitrary)]
struct Shape {
    has_memory: bool,
    exports_0_2: Option<[Item; 8]>,
    exports_0_4: Option<[Item; 3]>,
    imports_0_2: Option<[Item; 3]>,
    imports_0_4: Option<[Item; 1]>,
    wasi: Option<[Item; 4]>,
    is_wasi_unstable: bool,
    reactor: Option<Item>,
    unknown_import: Option<u8>,
    /// The addresses of the version numbers of either ABI; they are 1 and 0.
    versions: [Option<u16>; 4],
    data: Vec<(u16, Vec<u8>)>,
}

impl Shape {
    fn fits(&self, abi: AbiVersion) -> bool {
        let all_correct = |all: &[Item]| all.iter().all(|one| one.is_correct());
        // Imports are optional.
        let all_valid_imports = |all: &[Item]| {
            all.iter()
                .all(|one| one.is_correct() || *one == Item::Missing)
        };
        let all_missing = |all: &[Item]| all.iter().all(|one| *one == Item::Missing);
        let (exports, ours, others) = match abi {
            AbiVersion::V0_2 => (
                self.exports_0_2
                    .as_ref()
                    .is_some_and(|all| all_correct(all)),
                self.imports_0_2
                    .as_ref()
                    .is_none_or(|all| all_valid_imports(all)),
                self.imports_0_4.as_ref().is_none_or(|all| all_missing(all)),
            ),
            AbiVersion::V0_4 => (
                self.exports_0_4
                    .as_ref()
                    .is_some_and(|all| all_correct(all)),
                self.imports_0_4
                    .as_ref()
                    .is_none_or(|all| all_valid_imports(all)),
                self.imports_0_2.as_ref().is_none_or(|all| all_missing(all)),
            ),
        };
        self.has_memory
            && exports
            && ours
            && others
            && self.wasi.as_ref().is_none_or(|all| all_valid_imports(all))
            && self
                .reactor
                .is_none_or(|reactor| reactor.is_correct() || reactor == Item::Missing)
            && self.unknown_import.is_none()
    }

    /// Whether the version numbers are right once the data segments are written, in order.
    fn has_correct_versions(&self, abi: AbiVersion) -> bool {
        let mut memory = vec![0; 65_536];
        for (at, bytes) in &self.data {
            let end = usize::from(*at) + bytes.len();
            match memory.get_mut(usize::from(*at)..end) {
                Some(target) => target.copy_from_slice(bytes),
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
        let memory = if self.has_memory {
            "(memory (export \"memory\") 1)"
        } else {
            "(memory 1)"
        };
        let (imports, exports, data) = (self.imports(), self.exports(), self.data_segments());
        wat::parse_str(format!("(module {imports} {memory} {exports} {data})")).ok()
    }

    fn imports(&self) -> String {
        let mut text = String::new();
        let mut add = |module: &str, table: &Table, items: &[Item]| {
            for ((name, ty), item) in table.iter().zip(items) {
                if let Some(item) = item_wat(*item, ty, "") {
                    text.push_str(&format!("(import \"{module}\" \"{name}\" {item})\n"));
                }
            }
        };
        add(
            "env",
            &IMPORTS_0_2,
            self.imports_0_2.as_slice().as_flattened(),
        );
        add(
            "env",
            &IMPORTS_0_4,
            self.imports_0_4.as_slice().as_flattened(),
        );
        add(
            match self.is_wasi_unstable {
                true => "wasi_unstable",
                false => "wasi_snapshot_preview1",
            },
            &WASI,
            self.wasi.as_slice().as_flattened(),
        );
        if let Some(number) = self.unknown_import {
            text.push_str(&format!("(import \"env\" \"unknown{number}\" (func))\n"));
        }
        text
    }

    fn exports(&self) -> String {
        let mut text = String::new();
        let mut add = |table: &Table, items: &[Item]| {
            for ((name, ty), item) in table.iter().zip(items) {
                if let Some(item) = item_wat(*item, ty, name) {
                    text.push_str(&item);
                    text.push('\n');
                }
            }
        };
        add(&EXPORTS_0_2, self.exports_0_2.as_slice().as_flattened());
        add(&EXPORTS_0_4, self.exports_0_4.as_slice().as_flattened());
        add(&[("_initialize", "")], self.reactor.as_slice());
        let names = [
            "JAMSOCKET_API_VERSION",
            "JAMSOCKET_API_PROTOCOL",
            "STATEROOM_API_VERSION",
            "STATEROOM_API_PROTOCOL",
        ];
        for (name, address) in names.iter().zip(self.versions) {
            if let Some(address) = address {
                text.push_str(&format!(
                    "(global (export \"{name}\") i32 (i32.const {address}))\n"
                ));
            }
        }
        text
    }

    fn data_segments(&self) -> String {
        let segment = |(at, bytes): &(u16, Vec<u8>)| {
            let bytes: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            format!("(data (i32.const {at}) \"{bytes}\")\n")
        };
        self.data.iter().map(segment).collect()
    }
}

/// An import, or an export with a name, in the text format.
fn item_wat(one: Item, ty: &str, export: &str) -> Option<String> {
    let export = if export.is_empty() {
        String::new()
    } else {
        format!("(export \"{export}\")")
    };
    let body = if export.is_empty() { "" } else { "unreachable" };
    Some(match one {
        Item::Missing => return None,
        Item::WrongKind if export.is_empty() => "(table 1 funcref)".to_owned(),
        Item::WrongKind => format!("(table {export} 1 funcref)"),
        Item::WrongType(which) => {
            let wrong = WRONG_TYPES[usize::from(which) % WRONG_TYPES.len()];
            // The type drawn may be the right one.
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
