//! SIMD is an option of loading a module.

use crate::support::{assemble, connect, guest_0_2, room};
use stateroom_wasmi_host::{
    Compilation, Fault, FaultCause, Limits, LoadError, LoadOptions, Module,
};

fn wasm() -> Vec<u8> {
    let splat = "(drop (i8x16.splat (local.get 0)))";
    assemble(&guest_0_2("", &[("connect", splat)], ""))
}

fn load(options: LoadOptions) -> Result<Module, LoadError> {
    Module::load_with(&wasm(), &Limits::default(), options)
}

#[test]
fn a_module_with_simd_is_refused_by_default() {
    assert!(matches!(
        Module::load(&wasm(), &Limits::default()),
        Err(LoadError::Invalid(_))
    ));
    for compilation in [Compilation::Lazy, Compilation::Eager] {
        let loaded = load(LoadOptions::new().compilation(compilation));
        assert!(matches!(loaded, Err(LoadError::Invalid(_))));
    }
    // Also in unreachable code, and for relaxed instructions.
    let unreachable = "unreachable i8x16.relaxed_swizzle drop";
    let wasm = assemble(&guest_0_2("", &[("connect", unreachable)], ""));
    let loaded = Module::load(&wasm, &Limits::default());
    assert!(matches!(loaded, Err(LoadError::Invalid(_))));
}

#[test]
fn a_module_with_simd_loads_with_the_option() {
    let options = LoadOptions::new().simd(true);
    for compilation in [Compilation::Lazy, Compilation::Eager, Compilation::OnDemand] {
        let mut room = room(&load(options.compilation(compilation)).expect("SIMD is allowed"));
        connect(&mut room, 1);
        assert_eq!(room.fault(), None, "{compilation:?}");
    }
}

#[test]
fn on_demand_a_simd_function_faults_without_the_option() {
    let module = load(Compilation::OnDemand.into()).expect("functions are not validated yet");
    let mut room = room(&module);
    connect(&mut room, 1);
    let fault = Fault {
        during: "connect",
        cause: FaultCause::InvalidFunction,
    };
    assert_eq!(room.fault(), Some(&fault));
}
