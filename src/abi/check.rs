//! Checks a module against its ABI and collects all problems.

use super::{
    AbiVersion, ExternKind, Signature, ValueType,
    description::{Abi, COMMAND, CONSTRUCTOR, ENV, MEMORY},
    wasi::{self, WasiVersion},
};
use crate::escape::Escaped;
use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::fmt;

/// What a module imports and exports, and the version numbers found in it.
#[derive(Debug, Default)]
pub(crate) struct ModuleShape<'a> {
    /// Module, name and kind of each import.
    pub(crate) imports: Vec<(&'a str, &'a str, ExternKind)>,
    /// Name and kind of each export.
    pub(crate) exports: Vec<(&'a str, ExternKind)>,
    /// Names of exported globals with the numbers at their addresses.
    pub(crate) versions: Vec<(&'a str, i32)>,
}

/// One way in which a module does not conform to the ABI.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbiProblem {
    /// The module has no export of either ABI.
    NotARoom,
    /// The module exports `_start` and not `_initialize`: it was built as a command, which runs once,
    /// and not as a reactor, whose exports are called.
    Command,
    /// An export is missing.
    MissingExport {
        /// Its name.
        name: &'static str,
        /// The type that the ABI requires.
        expected: ExternKind,
    },
    /// An export has the wrong type.
    WrongExport {
        /// Its name.
        name: &'static str,
        /// The type that the ABI requires.
        expected: ExternKind,
        /// The type that it has.
        found: ExternKind,
    },
    /// The module imports something that the ABI does not have, or something of WASI from a build
    /// without the feature `wasi`.
    UnknownImport {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// The type that the module declares.
        found: ExternKind,
    },
    /// An import has the wrong type.
    WrongImport {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// The type that the host provides.
        expected: ExternKind,
        /// The type that the module declares.
        found: ExternKind,
    },
    /// The module was built for another version of the interface.
    WrongVersion {
        /// The exported global that holds the address of the number.
        name: &'static str,
        /// The number that the host expects.
        expected: i32,
        /// The number in the module.
        found: i32,
    },
}

impl fmt::Display for AbiProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARoom => f.write_str(
                "the module exports neither `stateroom_recv` (ABI 0.4) nor `jam_malloc`, \
                 `initialize`, `message` … (ABI 0.2): it is not a Stateroom room",
            ),
            Self::Command => f.write_str(
                "the module exports `_start` and not `_initialize`: it was built as a command, a \
                 program with a `main`, which this host does not call. Build it as a reactor (in Rust \
                 as a `cdylib`, in C with `-mexec-model=reactor`, in Go with `-buildmode=c-shared`, in \
                 Zig without an entry)",
            ),
            Self::MissingExport { name, expected } => {
                write!(f, "export `{name}` is missing; it must be {expected}")
            }
            Self::WrongExport {
                name,
                expected,
                found,
            } => {
                write!(f, "export `{name}` must be {expected}, but is {found}")
            }
            Self::UnknownImport {
                module,
                name,
                found,
            } => {
                write_import(f, module, name)?;
                let is_left_out = wasi::LEFT_OUT.contains(&module.as_str());
                let reason = match is_left_out {
                    true => "is not provided: this build of the host has no WASI",
                    false => "is unknown to this ABI",
                };
                write!(f, " ({found}) {reason}")
            }
            Self::WrongImport {
                module,
                name,
                expected,
                found,
            } => {
                write_import(f, module, name)?;
                write!(f, " is {expected}, but the module wants {found}")
            }
            Self::WrongVersion {
                name,
                expected,
                found,
            } => {
                write!(f, "`{name}` is {found}, but this host speaks {expected}")
            }
        }
    }
}

/// As in the text format, so that it is clear where the two names end.
fn write_import(f: &mut fmt::Formatter<'_>, module: &str, name: &str) -> fmt::Result {
    const MAX_CHARS: usize = 100;
    let escaped = |name| Escaped::new(name).at_most(MAX_CHARS);
    write!(f, "import {:?} {:?}", escaped(module), escaped(name))
}

/// Finds the ABI that a module conforms to, or what keeps it from conforming to the one that it is
/// most likely meant for.
///
/// The exports of both ABIs may be in one module: then its imports decide, since the two have no
/// function in common. A module that imports nothing of either conforms to both, and is served by
/// the newer.
pub(crate) fn check(
    shape: &ModuleShape<'_>,
) -> Result<AbiVersion, (Option<AbiVersion>, Vec<AbiProblem>)> {
    let find_problems = |version: AbiVersion| find_problems(version.description(), shape);
    let mut versions = AbiVersion::NEWEST_FIRST.into_iter();
    if let Some(version) = versions.find(|version| find_problems(*version).is_empty()) {
        return Ok(version);
    }
    let command = command_problem(shape).into_iter();
    Err(match detect(shape) {
        Some(version) => {
            let problems = command.chain(find_problems(version)).collect();
            (Some(version), problems)
        }
        None => (
            None,
            [AbiProblem::NotARoom].into_iter().chain(command).collect(),
        ),
    })
}

/// The ABI that a module is meant for which conforms to none. It exports something of it, so that a
/// module which is nearly a room gets a list of what is missing. If it has exports of both, its
/// imports decide, and then an export that identifies an ABI.
fn detect(shape: &ModuleShape<'_>) -> Option<AbiVersion> {
    let has = |name: &str| shape.exports.iter().any(|(export, _)| *export == name);
    let exports_any = |abi: &Abi| abi.exports().any(|(name, _)| has(name));
    let imports_any = |abi: &Abi| {
        let mut imports = shape.imports.iter();
        imports.any(|(module, name, _)| *module == ENV && abi.import(name).is_some())
    };
    let is_identified = |abi: &Abi| abi.identified_by.is_some_and(has);
    let find = |is_it: &dyn Fn(&Abi) -> bool| {
        AbiVersion::NEWEST_FIRST
            .into_iter()
            .find(|version| is_it(version.description()))
    };
    find(&|abi| exports_any(abi) && imports_any(abi))
        .or_else(|| find(&is_identified))
        .or_else(|| find(&exports_any))
}

/// All problems of a module with an ABI.
fn find_problems(abi: &Abi, shape: &ModuleShape<'_>) -> Vec<AbiProblem> {
    let mut problems = Vec::new();
    check_exports(abi, shape, &mut problems);
    check_imports(abi, shape, &mut problems);
    check_versions(abi, shape, &mut problems);
    problems
}

/// What is most likely the reason for all other problems of a command.
fn command_problem(shape: &ModuleShape<'_>) -> Option<AbiProblem> {
    let exports = |name| shape.exports.iter().any(|(export, _)| *export == name);
    let is_command = exports(COMMAND) && !exports(CONSTRUCTOR.0);
    is_command.then_some(AbiProblem::Command)
}

fn check_exports(abi: &Abi, shape: &ModuleShape<'_>, problems: &mut Vec<AbiProblem>) {
    let find = |name: &str| {
        let export = shape.exports.iter().find(|(export, _)| *export == name);
        export.map(|(_, kind)| kind)
    };
    let mut expect = |name: &'static str, expected: ExternKind, required: bool| match find(name) {
        None if required => problems.push(AbiProblem::MissingExport { name, expected }),
        Some(found) if *found != expected => {
            problems.push(AbiProblem::WrongExport {
                name,
                expected,
                found: found.clone(),
            });
        }
        _ => {}
    };
    let function = |shorthand| ExternKind::Func(Signature::from_shorthand(shorthand));
    expect(MEMORY, ExternKind::Memory, true);
    for (name, shorthand) in abi.exports() {
        expect(name, function(shorthand), true);
    }
    for (name, shorthand) in abi.optional_exports() {
        expect(name, function(shorthand), false);
    }
    for (name, _) in abi.version_globals {
        expect(name, ExternKind::Global(ValueType::I32), false);
    }
}

fn check_imports(abi: &Abi, shape: &ModuleShape<'_>, problems: &mut Vec<AbiProblem>) {
    for (module, name, found) in &shape.imports {
        let names = || ((*module).to_owned(), (*name).to_owned());
        let signature = match *module {
            ENV => abi.import(name),
            module => WasiVersion::imported_as(module).and_then(|wasi| wasi.function(name)),
        };
        let Some(signature) = signature else {
            let (module, name) = names();
            problems.push(AbiProblem::UnknownImport {
                module,
                name,
                found: found.clone(),
            });
            continue;
        };
        let expected = ExternKind::Func(signature);
        if *found != expected {
            let (module, name) = names();
            problems.push(AbiProblem::WrongImport {
                module,
                name,
                expected,
                found: found.clone(),
            });
        }
    }
}

/// Reports numbers that are wrong. Where there is a zero, the guest may yet write its number when it
/// is started: the numbers are checked again when a room is opened.
fn check_versions(abi: &Abi, shape: &ModuleShape<'_>, problems: &mut Vec<AbiProblem>) {
    for &(name, expected) in abi.version_globals {
        let number = shape.versions.iter().find(|(global, _)| *global == name);
        if let Some(&(_, found)) = number
            && found != expected
            && found != 0
        {
            problems.push(AbiProblem::WrongVersion {
                name,
                expected,
                found,
            });
        }
    }
}
