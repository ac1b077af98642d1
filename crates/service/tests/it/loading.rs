//! Modules that cannot be loaded.

use stateroom_wasmi_service::{WasmHostFactory, WasmRuntimeError};
use std::path::Path;

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = Path::new("no/such/room.wasm");
    let error = WasmHostFactory::new(path).expect_err("there is no such file");
    assert!(matches!(
        error.downcast_ref(),
        Some(WasmRuntimeError::File { .. })
    ));
    assert!(error.to_string().contains("no/such/room.wasm"), "{error}");
}

/// The JIT hosts report one problem, and only when a room is built.
#[test]
fn all_that_is_wrong_with_a_module_is_in_one_error() {
    let text = r#"(module (import "env" "x" (func)) (func (export "jam_malloc")))"#;
    let module = wat::parse_str(text);
    let error = WasmHostFactory::from_bytes(&module.unwrap()).expect_err("it is no room");
    assert!(matches!(
        error.downcast_ref(),
        Some(WasmRuntimeError::Load(_))
    ));
    let text = format!("{error:#}");
    for problem in ["jam_malloc", "jam_free", "memory", "x"] {
        assert!(text.contains(problem), "{text}");
    }
}
