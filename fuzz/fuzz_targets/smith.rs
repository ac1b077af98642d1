//! Valid modules with random function bodies (wasm-smith) and the exports of either ABI, so that
//! they load as rooms.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use stateroom_wasmi_fuzz::{check_module, limits};
use stateroom_wasmi_host::{LoadError, LoadOptions, Module};
use std::sync::LazyLock;
use wasm_encoder::{ExportKind, ExportSection, reencode::Reencode};

fuzz_target!(|data: &[u8]| {
    // Short inputs make no module.
    if let Ok(wasm) = room(&mut Unstructured::new(data)) {
        match Module::load_with(&wasm, &limits(u64::MAX), LoadOptions::new().simd(true)) {
            Ok(_) => check_module(&wasm),
            // It has an instruction that the interpreter gets wrong.
            Err(LoadError::Misread { .. }) => {}
            // Its rooms would exceed a limit from the start.
            Err(LoadError::TooMany { .. }) => {}
            Err(error) => panic!("a valid room was refused: {error:?}"),
        }
    }
});

/// A module whose exports, and one whose imports, wasm-smith takes as a template.
type Templates = (Vec<u8>, Vec<u8>);

static TEMPLATES: LazyLock<[Templates; 2]> = LazyLock::new(|| {
    let exports_0_2 = r#"
        (func (export "jam_malloc") (param i32) (result i32) unreachable)
        (func (export "jam_free") (param i32 i32))
        (func (export "initialize") (param i32 i32))
        (func (export "connect") (param i32))
        (func (export "disconnect") (param i32))
        (func (export "timer"))
        (func (export "message") (param i32 i32 i32))
        (func (export "binary") (param i32 i32 i32))"#;
    let imports_0_2 = r#"
        (import "env" "send_message" (func (param i32 i32 i32)))
        (import "env" "send_binary" (func (param i32 i32 i32)))
        (import "env" "set_timer" (func (param i32)))"#;
    let exports_0_4 = r#"
        (func (export "stateroom_malloc") (param i32) (result i32) unreachable)
        (func (export "stateroom_free") (param i32 i32))
        (func (export "stateroom_recv") (param i32 i32))"#;
    let imports_0_4 = r#"(import "env" "stateroom_send" (func (param i32 i32)))"#;
    let wasi = r#"
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_fdstat_get" (func (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
    let module =
        |text: &str| wat::parse_str(format!("(module {text})")).expect("the template is valid");
    [
        (
            module(exports_0_2),
            module(&format!("{imports_0_2} {wasi}")),
        ),
        (
            module(exports_0_4),
            module(&format!("{imports_0_4} {wasi}")),
        ),
    ]
});

fn room(random: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let (exports, imports) = &TEMPLATES[usize::from(bool::arbitrary(random)?)];
    let config = wasm_smith::Config {
        available_imports: Some(imports.clone()),
        exports: Some(exports.clone()),
        allow_start_export: bool::arbitrary(random)?,
        min_memories: 1,
        max_memories: 3,
        // Above the limits, so that inputs reach them.
        max_memory32_bytes: 8 << 20,
        max_table_elements: 1_200,
        max_tables: 4,
        max_instructions: 300,
        // Memories that grow by bytes, and may end anywhere.
        custom_page_sizes_enabled: bool::arbitrary(random)?,
        // Not in the interpreter, or disabled.
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        threads_enabled: false,
        ..wasm_smith::Config::default()
    };
    let module = wasm_smith::Module::new(config, random)?;
    Ok(with_memory(&module.to_bytes()))
}

/// Exports the first memory, which wasm-smith leaves out.
fn with_memory(wasm: &[u8]) -> Vec<u8> {
    struct WithMemory;

    impl Reencode for WithMemory {
        type Error = std::convert::Infallible;

        fn parse_export_section(
            &mut self,
            exports: &mut ExportSection,
            section: wasmparser::ExportSectionReader<'_>,
        ) -> Result<(), wasm_encoder::reencode::Error<Self::Error>> {
            exports.export("memory", ExportKind::Memory, 0);
            wasm_encoder::reencode::utils::parse_export_section(self, exports, section)
        }
    }

    let mut module = wasm_encoder::Module::new();
    WithMemory
        .parse_core_module(&mut module, wasmparser::Parser::new(0), wasm)
        .expect("wasm-smith makes valid modules");
    module.finish()
}
