//! Loading modules without validation.

use crate::{
    determinism::{bundled, play},
    support::{assemble, echo, limits},
};
use stateroom_wasmi_host::{Compilation, Limits, LoadError, LoadOptions, Module};

fn load(
    wasm: &[u8],
    limits: &Limits,
    options: impl Into<LoadOptions>,
) -> Result<Module, LoadError> {
    let validated = Module::load(wasm, &Limits::default());
    assert!(
        matches!(validated, Ok(_) | Err(LoadError::Abi { .. })),
        "{validated:?}"
    );
    // SAFETY: the validated load above found the module valid.
    unsafe { Module::load_unchecked(wasm, limits, options) }
}

#[test]
fn bundled_rooms_behave_the_same_without_validation() {
    let limits = limits(|limits| limits.fuel_per_slice = 700);
    for (name, wasm) in bundled() {
        let expected = play(&Module::load(&wasm, &limits).expect("the module loads"));
        for compilation in [Compilation::Lazy, Compilation::Eager, Compilation::OnDemand] {
            let module = load(&wasm, &limits, compilation).expect("the module loads");
            assert_eq!(play(&module), expected, "{name}, {compilation:?}");
        }
    }
}

#[cfg(feature = "snapshot")]
#[test]
fn unchecked_modules_can_be_loaded_for_rollback() {
    let mut options = LoadOptions::default();
    options.snapshots = true;
    let wasm = assemble(&echo());
    let module = load(&wasm, &Limits::default(), options).expect("the module loads");
    assert_eq!(
        play(&module),
        play(&Module::load(&wasm, &Limits::default()).expect("the module loads"))
    );
}

#[test]
fn abi_and_size_are_checked_without_validation() {
    let module = assemble("(module)");
    assert!(matches!(
        load(&module, &Limits::default(), Compilation::Eager),
        Err(LoadError::Abi { .. })
    ));
    let short = limits(|limits| limits.max_module_bytes = 100);
    let error = load(&assemble(&echo()), &short, Compilation::Eager).map(drop);
    assert!(
        matches!(error, Err(LoadError::TooLarge { limit: 100, .. })),
        "{error:?}"
    );
}
