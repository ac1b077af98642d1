//! A build without the feature `wasi` refuses modules that import something of it. That it runs all
//! others, the other files test.

use crate::{
    determinism::imports_wasi,
    support::{ENV, assemble, guest_0_2},
};
use stateroom_wasmi_host::{
    Limits, LoadError, Module,
    abi::{AbiProblem, AbiVersion},
};
use std::fs;

/// The problems of a module that is refused by the ABI check.
fn problems(wasm: &[u8]) -> (Option<AbiVersion>, Vec<AbiProblem>) {
    match Module::load(wasm, &Limits::default()) {
        Err(LoadError::Abi { abi, problems }) => (abi, problems),
        other => panic!("{other:?}"),
    }
}

#[test]
fn imports_of_wasi_are_refused_with_all_other_problems() {
    let imports = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "env" "fly" (func))
        (import "wasi_unstable" "sched_yield" (func (result i32)))
        (import "wasi" "sched_yield" (func (result i32)))"#;
    let text = guest_0_2(&(ENV.to_owned() + imports), &[], "");
    let (abi, problems) = problems(&assemble(&text));
    assert_eq!(abi, Some(AbiVersion::V0_2));
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "import \"wasi_snapshot_preview1\" \"fd_write\" (a function (i32, i32, i32, i32) -> i32) is \
             not provided: this build of the host has no WASI",
            "import \"env\" \"fly\" (a function () -> ()) is unknown to this ABI",
            "import \"wasi_unstable\" \"sched_yield\" (a function () -> i32) is not provided: this build \
             of the host has no WASI",
            "import \"wasi\" \"sched_yield\" (a function () -> i32) is unknown to this ABI",
        ]
    );
}

#[test]
fn bundled_rooms_that_import_wasi_lack_nothing_else() {
    let mut refused = 0;
    for entry in fs::read_dir("examples/rooms/wasm").expect("the bundled rooms are there") {
        let path = entry.expect("the folder can be read").path();
        let name = path
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy();
        if !imports_wasi(&name) {
            continue;
        }
        refused += 1;
        let (_, problems) = problems(&fs::read(&path).expect("the room can be read"));
        for problem in problems {
            assert!(
                matches!(&problem, AbiProblem::UnknownImport { module, .. }
                    if module == "wasi_snapshot_preview1"),
                "{name}: {problem}"
            );
        }
    }
    assert!(refused >= 4, "only {refused} rooms were found");
}
