//! Whether a module fits the ABI: all that is wrong with it, in one go.

use super::{AbiVersion, ExternKind, Signature, tables};
use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::fmt;

/// What a module imports and exports, and the version numbers found in it.
#[derive(Debug, Default)]
pub(crate) struct ModuleShape<'a> {
    /// Module, name and kind of each import.
    pub(crate) imports: Vec<(&'a str, &'a str, ExternKind)>,
    /// Name and kind of each export.
    pub(crate) exports: Vec<(&'a str, ExternKind)>,
    /// Names of exported globals with the number at the address that each holds.
    pub(crate) versions: Vec<(&'a str, i32)>,
}

/// One thing in which a module does not fit the ABI.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbiProblem {
    /// The module exports nothing of either ABI, so it is no room.
    NotARoom,
    /// An export is missing.
    MissingExport {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: ExternKind,
    },
    /// An export is something else than it must be.
    WrongExport {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: ExternKind,
        /// What it is.
        found: ExternKind,
    },
    /// The module imports something that no host of this ABI has.
    UnknownImport {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// What it is to be.
        found: ExternKind,
    },
    /// An import is something else than the host has under that name.
    WrongImport {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// What the host has.
        expected: ExternKind,
        /// What the module wants.
        found: ExternKind,
    },
    /// The module was made for another version of the interface.
    WrongVersion {
        /// The exported global that holds the address of the number.
        name: &'static str,
        /// What the number must be.
        expected: i32,
        /// What it is.
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
                write!(
                    f,
                    "import `{module}.{name}` ({found}) is unknown to this ABI"
                )
            }
            Self::WrongImport {
                module,
                name,
                expected,
                found,
            } => {
                write!(
                    f,
                    "import `{module}.{name}` is {expected}, but the module wants {found}"
                )
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

/// Finds out which ABI a module speaks and all that is wrong with it.
pub(crate) fn check(
    shape: &ModuleShape<'_>,
) -> Result<AbiVersion, (Option<AbiVersion>, Vec<AbiProblem>)> {
    let Some(abi) = detect(shape) else {
        return Err((None, Vec::from([AbiProblem::NotARoom])));
    };
    let mut problems = Vec::new();
    check_exports(abi, shape, &mut problems);
    check_imports(abi, shape, &mut problems);
    for (name, expected) in tables::versions(abi) {
        // A later data segment writes over an earlier one.
        match shape.versions.iter().rfind(|(global, _)| *global == name) {
            Some(&(_, found)) if found != expected => {
                problems.push(AbiProblem::WrongVersion {
                    name,
                    expected,
                    found,
                });
            }
            _ => {}
        }
    }
    if problems.is_empty() {
        Ok(abi)
    } else {
        Err((Some(abi), problems))
    }
}

/// The ABI is seen from the exports: the one of `stateroom_recv` first, then the one of which
/// there is anything at all, so that a module that is nearly a room is told what it lacks.
fn detect(shape: &ModuleShape<'_>) -> Option<AbiVersion> {
    let exports_any = |names: &[tables::Named]| {
        shape
            .exports
            .iter()
            .any(|(name, _)| names.iter().any(|(known, _)| known == name))
    };
    if exports_any(&[("stateroom_recv", "")]) {
        return Some(AbiVersion::V0_4);
    }
    [AbiVersion::V0_2, AbiVersion::V0_4]
        .into_iter()
        .find(|abi| exports_any(tables::exports(*abi)))
}

fn check_exports(abi: AbiVersion, shape: &ModuleShape<'_>, problems: &mut Vec<AbiProblem>) {
    let found = |name: &str| {
        shape
            .exports
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, kind)| kind)
    };
    let mut expect = |name: &'static str, expected: ExternKind, required: bool| match found(name) {
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
    expect(tables::MEMORY, ExternKind::Memory, true);
    for (name, shorthand) in tables::exports(abi) {
        expect(
            name,
            ExternKind::Func(Signature::from_shorthand(shorthand)),
            true,
        );
    }
    let (name, shorthand) = tables::REACTOR;
    expect(
        name,
        ExternKind::Func(Signature::from_shorthand(shorthand)),
        false,
    );
    for (name, _) in tables::versions(abi) {
        expect(name, ExternKind::Global(super::ValueType::I32), false);
    }
}

fn check_imports(abi: AbiVersion, shape: &ModuleShape<'_>, problems: &mut Vec<AbiProblem>) {
    for (module, name, found) in &shape.imports {
        let names = || ((*module).to_owned(), (*name).to_owned());
        let Some(signature) = tables::import_signature(abi, module, name) else {
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
