//! Modules that are loaded without being validated.

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
    let found = Module::load(wasm, &Limits::default());
    assert!(
        matches!(found, Ok(_) | Err(LoadError::Abi { .. })),
        "{found:?}"
    );
    // SAFETY: it is valid, as was just seen.
    unsafe { Module::load_unchecked(wasm, limits, options) }
}

#[test]
fn bundled_rooms_do_what_they_do_when_they_are_validated() {
    let limits = limits(|limits| limits.fuel_per_slice = 700);
    for (name, wasm) in bundled() {
        let expected = play(&Module::load(&wasm, &limits).expect("it loads"));
        for compilation in [Compilation::Lazy, Compilation::Eager, Compilation::OnDemand] {
            let module = load(&wasm, &limits, compilation).expect("it loads");
            assert_eq!(play(&module), expected, "{name}, {compilation:?}");
        }
    }
}

#[cfg(feature = "rollback")]
#[test]
fn they_can_be_rolled_back_as_well() {
    let mut options = LoadOptions::default();
    options.rollback = true;
    let wasm = assemble(&echo());
    let module = load(&wasm, &Limits::default(), options).expect("it loads");
    assert_eq!(
        play(&module),
        play(&Module::load(&wasm, &Limits::default()).expect("it loads"))
    );
}

#[test]
fn what_is_no_room_is_refused_without_validation_too() {
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
