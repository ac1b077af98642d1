//! What to do about a module that is no room: mistakes by which others have come to such a module.

use stateroom_wasmi_host::{LoadError, Module, abi::AbiProblem};
use wasmparser::{ExternalKind, KnownCustom, Parser, Payload};

/// What to do about this error; nothing if it has no usual reason.
pub(crate) fn on(error: &LoadError, wasm: &[u8]) -> Vec<String> {
    let LoadError::Abi { problems, .. } = error else {
        return Vec::new();
    };
    let language = Language::of(wasm);
    let missing = |names: &[&str]| {
        let mut missing = problems.iter().filter_map(|problem| match problem {
            AbiProblem::MissingExport { name, .. } => Some(*name),
            _ => None,
        });
        missing.any(|name| names.contains(&name))
    };
    let mut advice = Vec::new();
    if problems.contains(&AbiProblem::NotARoom) {
        advice.push(on_no_exports(language, has_main(wasm)));
    }
    if missing(&["memory"]) {
        advice.push(
            "export the memory, as linkers do unless they are told `--import-memory`".to_owned(),
        );
    }
    if missing(&["jam_malloc", "jam_free"]) {
        advice.push(
            "`jam_malloc` and `jam_free` are in the support file of a language: in C link malloc.c, in \
             AssemblyScript export them again (`export { jam_malloc, jam_free, … } from \"./stateroom\"`)"
                .to_owned(),
        );
    }
    if missing(&HANDLERS) {
        advice.push(
            "a room exports each function of its ABI, also those that do nothing: in C \
             `void room_timer(void) {}`, in AssemblyScript `export function timer(): void {}`"
                .to_owned(),
        );
    }
    // One for each kind, however many there are.
    for kind in ImportKind::ALL {
        let is_meant = |problem: &AbiProblem| match problem {
            AbiProblem::UnknownImport { module, name, .. } => ImportKind::of(module, name) == kind,
            _ => false,
        };
        if problems.iter().any(is_meant) {
            advice.push(kind.advice().to_owned());
        }
    }
    advice
}

/// What to do to see why a guest trapped, if it has no way to say so.
pub(crate) fn on_silent_panic(module: &Module) -> Option<String> {
    let prints = module.imports().any(|(_, name, _)| name == "fd_write");
    (!prints).then(|| {
        "`unreachable` is how a panic or an abort ends. In Rust and C, build for WASI (in Rust \
         `--target wasm32-wasip1`) to have its message in the log"
            .to_owned()
    })
}

/// The functions of ABI 0.2 that handle events.
const HANDLERS: [&str; 6] = [
    "initialize",
    "connect",
    "disconnect",
    "message",
    "binary",
    "timer",
];

fn on_no_exports(language: Option<Language>, has_main: bool) -> String {
    let how = match (language, has_main) {
        (Some(Language::Rust) | None, true) => {
            "a room is a library, and no program with a `main`: in Rust it is in src/lib.rs, and \
             Cargo.toml says `crate-type = [\"cdylib\"]` below `[lib]`"
        }
        (Some(Language::Rust), false) => {
            "`#[stateroom_wasm]` above the struct of the room makes the exports, in the crate that has \
             `crate-type = [\"cdylib\"]` below `[lib]` in its Cargo.toml"
        }
        (Some(Language::C), _) => {
            "stateroom.h names the functions that a room in C defines and exports; link malloc.c, too"
        }
        (Some(Language::Go), _) => "build a room in Go with `-buildmode=c-shared`",
        (Some(Language::Zig), _) => {
            "a room in Zig needs `comptime { stateroom.serve(@This()); }`, and `-rdynamic` (in build.zig \
             `rdynamic = true`) to export it"
        }
        (None, false) => {
            "a room exports the functions of the ABI: in Rust `#[stateroom_wasm]` makes them, in C they \
             are in stateroom.h and malloc.c, in AssemblyScript the entry file exports them, in Zig \
             `stateroom.serve(@This())` with `-rdynamic`, in Go `-buildmode=c-shared`"
        }
    };
    format!("{how}. `stateroom-wasmi new` makes a room to start from")
}

/// What others have linked against that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ImportKind {
    Browser,
    GoForBrowsers,
    AssemblyScript,
    Emscripten,
    Memory,
    Undefined,
    Other,
}

impl ImportKind {
    const ALL: [Self; 6] = [
        Self::Browser,
        Self::GoForBrowsers,
        Self::AssemblyScript,
        Self::Emscripten,
        Self::Memory,
        Self::Undefined,
    ];

    fn of(module: &str, name: &str) -> Self {
        const EMSCRIPTEN: [&str; 5] = [
            "emscripten_",
            "_emscripten_",
            "invoke_",
            "__syscall_",
            "__cxa_",
        ];
        match (module, name) {
            ("gojs" | "go", _) => Self::GoForBrowsers,
            ("wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__", _) => {
                Self::Browser
            }
            ("env", "abort" | "seed" | "trace") => Self::AssemblyScript,
            ("env", name) if name.starts_with("console.") => Self::AssemblyScript,
            ("env", "memory" | "__linear_memory" | "__indirect_function_table") => Self::Memory,
            ("env", name) if EMSCRIPTEN.iter().any(|start| name.starts_with(start)) => {
                Self::Emscripten
            }
            ("env", _) => Self::Undefined,
            _ => Self::Other,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Browser => {
                "a crate that the room depends on was built for a browser (wasm-bindgen): turn its \
                 feature off, which is often `js`, `wasm-bindgen` or `wasmbind`, and build for \
                 wasm32-wasip1, where there are clocks and random numbers"
            }
            Self::GoForBrowsers => "build a room in Go with `GOOS=wasip1`, and not with `GOOS=js`",
            Self::AssemblyScript => {
                "AssemblyScript imports such functions unless it is told otherwise: `\"use\": \
                 [\"abort=\"]` in asconfig.json makes an `abort` a trap; there is no `console`, \
                 and nothing that seeds `Math.random`"
            }
            Self::Emscripten => {
                "Emscripten's programs need its JavaScript: use clang with `--target=wasm32`, or wasi-sdk"
            }
            Self::Memory => {
                "the module must have a memory of its own: link it, without `--import-memory`, and in \
                 AssemblyScript without `importMemory`"
            }
            Self::Undefined => {
                "what is declared and not defined becomes an import of `env` where the linker allows it \
                 (`--allow-undefined`): link what defines it"
            }
            Self::Other => "",
        }
    }
}

/// What a module was made with.
#[derive(Clone, Copy)]
enum Language {
    Rust,
    C,
    Go,
    Zig,
}

impl Language {
    /// As its compiler noted in the module; many strip that off.
    fn of(wasm: &[u8]) -> Option<Self> {
        let payloads = Parser::new(0).parse_all(wasm).map_while(Result::ok);
        let sections = payloads.filter_map(|payload| match payload {
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::Producers(producers) => Some(producers),
                _ => None,
            },
            _ => None,
        });
        let fields = sections.flat_map(|section| section.into_iter().map_while(Result::ok));
        let values = fields.flat_map(|field| field.values.into_iter().map_while(Result::ok));
        // A room in Rust may have some C in it.
        let (mut rust, mut found) = (false, None);
        for value in values {
            match value.name {
                "Rust" | "rustc" => rust = true,
                "Go" => found = Some(Self::Go),
                "Zig" => found = Some(Self::Zig),
                // Distributions put their names before it.
                name if name == "C11" || name.ends_with("clang") => {
                    found = found.or(Some(Self::C));
                }
                _ => {}
            }
        }
        if rust { Some(Self::Rust) } else { found }
    }
}

/// Whether a module exports what a compiler makes of a `main`.
fn has_main(wasm: &[u8]) -> bool {
    let payloads = Parser::new(0).parse_all(wasm).map_while(Result::ok);
    let mut exports = payloads
        .filter_map(|payload| match payload {
            Payload::ExportSection(section) => Some(section),
            _ => None,
        })
        .flat_map(|section| section.into_iter().map_while(Result::ok));
    exports
        .any(|export| export.kind == ExternalKind::Func && matches!(export.name, "main" | "_start"))
}
