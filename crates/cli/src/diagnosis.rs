//! What is wrong with a file or a module, for whoever made it.

use crate::advice;
use stateroom_wasmi_host::{LoadError, Module, WithSources, abi::AbiProblem};
use wasmparser::{Operator, Parser, Payload, Validator, WasmFeatures};

/// What a file is that is no module in either format; none if it looks like one.
pub(crate) fn file_kind(bytes: &[u8]) -> Option<&'static str> {
    const COMPONENT: &str = "a component, and not a core module: build it for a target such as \
        wasm32-unknown-unknown or wasm32-wasip1";
    /// The version of modules; that of components has another second half.
    const MODULE: [u8; 4] = [1, 0, 0, 0];
    const COMPONENT_LAYER: [u8; 2] = [1, 0];
    /// ELF, Mach-O and Windows.
    const NATIVE: [&[u8]; 4] = [b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ"];
    let starts_with = |start: &[u8]| bytes.starts_with(start);
    Some(match bytes.strip_prefix(b"\0asm") {
        Some([_, _, layer @ ..]) if layer.starts_with(&COMPONENT_LAYER) => COMPONENT,
        Some(version) if !version.starts_with(&MODULE[..version.len().min(4)]) => {
            "of a version of WebAssembly that is not supported"
        }
        Some(_) if is_object(bytes) => {
            "an object file of WebAssembly, which a linker makes modules of"
        }
        Some(_) => return None,
        None if text_start(bytes).starts_with(b"(component") => COMPONENT,
        None if is_text_format(bytes) => return None,
        None if bytes.is_empty() => "an empty file",
        None if starts_with(b"\x1f\x8b") => "a gzip file: unpack it",
        None if starts_with(b"\x28\xb5\x2f\xfd") => "a Zstandard file: unpack it",
        None if starts_with(b"PK\x03\x04") => "a ZIP archive: unpack it",
        None if NATIVE.iter().any(|magic| starts_with(magic)) => {
            "a native program or library, and not WebAssembly: it was built for a machine, and not for \
             a target such as wasm32-wasip1"
        }
        None if starts_with(b"!<arch>\n") || starts_with(b"rust\0\0\0") => {
            "a library for a compiler (such as a .rlib, which cargo makes of a crate without \
             `crate-type = [\"cdylib\"]`), and no module"
        }
        None if starts_with(b"version https://git-lfs.github.com/spec/") => {
            "a pointer of Git LFS, and not the file that it stands for: `git lfs pull` fetches that"
        }
        None if is_html(bytes) => "an HTML page, such as a server's error message",
        None if is_text(bytes) => {
            "a text file, and neither WebAssembly (which begins with `\\0asm`) nor its text format \
             (which begins with `(`)"
        }
        None => "not WebAssembly, which begins with `\\0asm`",
    })
}

/// Whether a module is meant for a linker, which finds in such a section what it has to do.
fn is_object(wasm: &[u8]) -> bool {
    Parser::new(0).parse_all(wasm).map_while(Result::ok).any(
        |payload| matches!(payload, Payload::CustomSection(section) if section.name() == "linking"),
    )
}

/// Whether a file is meant to be WebAssembly text: it begins with a parenthesis or a comment.
pub(crate) fn is_text_format(bytes: &[u8]) -> bool {
    let text = text_start(bytes);
    text.starts_with(b"(") || text.starts_with(b";;")
}

fn is_html(bytes: &[u8]) -> bool {
    let text = text_start(bytes);
    let starts_with = |start: &str| {
        let head = text.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
    };
    starts_with("<!doctype html") || starts_with("<html")
}

fn is_text(bytes: &[u8]) -> bool {
    let is_binary = |c: char| c.is_control() && !c.is_ascii_whitespace();
    str::from_utf8(bytes).is_ok_and(|text| !text.contains(is_binary))
}

/// Where text begins, after the byte order mark that some editors write, and spaces.
fn text_start(bytes: &[u8]) -> &[u8] {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    text.trim_ascii_start()
}

/// Why a module cannot be loaded, and what to do. A valid one is not called invalid.
pub(crate) fn explain(error: &LoadError, wasm: &[u8]) -> String {
    let mut text = reason(error, wasm);
    for advice in advice::on(error, wasm) {
        text.push_str("\n  help: ");
        text.push_str(&advice);
    }
    text
}

fn reason(error: &LoadError, wasm: &[u8]) -> String {
    match error {
        LoadError::Invalid(_) => unsupported(wasm),
        _ => None,
    }
    .unwrap_or_else(|| WithSources(error).to_string())
}

/// All that keeps a module from being loaded, one by one.
pub(crate) fn problems(error: &LoadError, wasm: &[u8]) -> Vec<String> {
    match error {
        LoadError::Abi { problems, .. } => problems.iter().map(ToString::to_string).collect(),
        _ => Vec::from([reason(error, wasm)]),
    }
}

/// Names the proposals that a module uses and the interpreter does not have; none if it is invalid
/// with all of them, too.
fn unsupported(wasm: &[u8]) -> Option<String> {
    const PROPOSALS: [(WasmFeatures, &str); 9] = [
        (WasmFeatures::THREADS, "threads and atomics"),
        (
            WasmFeatures::SHARED_EVERYTHING_THREADS,
            "shared-everything threads",
        ),
        (WasmFeatures::MEMORY64, "64-bit memories"),
        (WasmFeatures::EXCEPTIONS, "exceptions"),
        (WasmFeatures::LEGACY_EXCEPTIONS, "legacy exceptions"),
        (WasmFeatures::FUNCTION_REFERENCES, "function references"),
        (WasmFeatures::GC, "garbage collection"),
        (WasmFeatures::STACK_SWITCHING, "stack switching"),
        (WasmFeatures::WIDE_ARITHMETIC, "wide arithmetic"),
    ];
    let is_valid = |features| {
        Validator::new_with_features(features)
            .validate_all(wasm)
            .is_ok()
    };
    let all = WasmFeatures::all();
    let used = PROPOSALS
        .into_iter()
        .filter(|(proposal, _)| !is_valid(all.difference(*proposal)))
        .map(|(_, name)| name)
        .collect::<Vec<_>>();
    (is_valid(all) && !used.is_empty()).then(|| {
        let used = used.join(", ");
        format!("the module is valid, but uses what the interpreter does not support: {used}")
    })
}

/// What is legal, but most likely not meant.
pub(crate) fn warnings(module: &Module, wasm: &[u8]) -> Vec<String> {
    let has = |name: &str| module.exports().any(|(export, _)| export == name);
    let mut warnings = Vec::new();
    if has("_start") && !has("_initialize") {
        warnings.push(AbiProblem::Command.to_string());
    }
    if has_padded_indices(wasm) {
        warnings.push(
            "it is as its linker left it: `wasm-opt -O3` of binaryen makes a room of the SDKs a \
             quarter faster and a sixth smaller"
                .to_owned(),
        );
    }
    warnings
}

/// Whether the code has indices of five bytes where fewer would do. A linker pads them so, for want
/// of time to move what follows; each tool that writes the code anew, `wasm-opt` among them, writes
/// them short.
fn has_padded_indices(wasm: &[u8]) -> bool {
    /// Of an opcode, and of an index that is padded.
    const PADDED: usize = 1 + 5;
    let is_padded = |body: wasmparser::FunctionBody<'_>| {
        let operators = body.get_operators_reader()?;
        let mut indexed_at = None;
        for operator in operators.into_iter_with_offsets() {
            let (operator, at) = operator?;
            if indexed_at.is_some_and(|indexed_at| at - indexed_at == PADDED) {
                return Ok(true);
            }
            // No module has so many functions or globals that all five bytes are needed.
            indexed_at = match operator {
                Operator::Call { .. } | Operator::GlobalGet { .. } | Operator::GlobalSet { .. } => {
                    Some(at)
                }
                _ => None,
            };
        }
        Ok::<_, wasmparser::BinaryReaderError>(false)
    };
    Parser::new(0)
        .parse_all(wasm)
        .map_while(Result::ok)
        .any(|payload| match payload {
            Payload::CodeSectionEntry(body) => is_padded(body).unwrap_or(false),
            _ => false,
        })
}
