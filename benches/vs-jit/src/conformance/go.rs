//! What the published host 0.2.9 asks of a module, and Go's linker cannot make.

use anyhow::{Result, bail};
use wasmparser::{BinaryReader, Parser, Payload};

/// A module of Go for the published host, which refuses a module without version numbers, and never
/// calls the constructor of a WASI reactor. Go exports nothing but functions, and does nothing before
/// its constructor has run. So the numbers are added, and a start function.
///
/// `None` for a module that the published host takes as it is.
pub fn for_the_published_host(wasm: &[u8]) -> Result<Option<Vec<u8>>> {
    // Below the first address of Go's data.
    const ADDRESS: u8 = 16;
    let Some(constructor) = constructor_of_go(wasm)? else {
        return Ok(None);
    };
    let mut globals = 0;
    let mut completed = wasm[..HEADER].to_vec();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let Payload::GlobalSection(section) = &payload {
            globals = section.count();
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let contents = &wasm[range];
        match id {
            GLOBAL => {
                let addresses =
                    [ADDRESS, ADDRESS + 4].map(|address| [I32, CONST, I32_CONST, address, END]);
                append(&mut completed, id, contents, 2, addresses.as_flattened())?;
            }
            EXPORT => {
                let mut exports = Vec::new();
                for (name, index) in ["JAMSOCKET_API_VERSION", "JAMSOCKET_API_PROTOCOL"]
                    .into_iter()
                    .zip(globals..)
                {
                    exports.push(name.len() as u8);
                    exports.extend(name.bytes());
                    exports.push(EXPORTED_GLOBAL);
                    leb128(&mut exports, index);
                }
                append(&mut completed, id, contents, 2, &exports)?;
                let mut start = Vec::new();
                leb128(&mut start, constructor);
                section(&mut completed, START, &start);
            }
            DATA_COUNT => append(&mut completed, id, contents, 1, &[])?,
            DATA => {
                let numbers = [ACTIVE, I32_CONST, ADDRESS, END, 8, 1, 0, 0, 0, 0, 0, 0, 0];
                append(&mut completed, id, contents, 1, &numbers)?;
            }
            START => bail!("it has a start function and a constructor"),
            _ => section(&mut completed, id, contents),
        }
    }
    Ok(Some(completed))
}

const HEADER: usize = 8;
// Numbers of sections, and codes within them.
const GLOBAL: u8 = 6;
const EXPORT: u8 = 7;
const START: u8 = 8;
const DATA: u8 = 11;
const DATA_COUNT: u8 = 12;
const I32: u8 = 0x7f;
const CONST: u8 = 0;
const I32_CONST: u8 = 0x41;
const END: u8 = 0x0b;
const EXPORTED_GLOBAL: u8 = 3;
const ACTIVE: u8 = 0;

/// The function `_initialize` of a module that exports functions and a memory alone.
fn constructor_of_go(wasm: &[u8]) -> Result<Option<u32>> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ExportSection(exports) = payload? {
            let exports = exports.into_iter().collect::<Result<Vec<_>, _>>()?;
            let exports_globals = exports
                .iter()
                .any(|export| export.kind == wasmparser::ExternalKind::Global);
            let constructor = exports.iter().find(|export| export.name == "_initialize");
            return Ok(constructor
                .filter(|_| !exports_globals)
                .map(|export| export.index));
        }
    }
    Ok(None)
}

/// Writes a section with more entries than it has.
fn append(out: &mut Vec<u8>, id: u8, contents: &[u8], added: u32, entries: &[u8]) -> Result<()> {
    let mut reader = BinaryReader::new(contents, 0);
    let count = reader.read_var_u32()?;
    let mut longer = Vec::with_capacity(contents.len() + entries.len() + 5);
    leb128(&mut longer, count + added);
    longer.extend(&contents[reader.original_position()..]);
    longer.extend(entries);
    section(out, id, &longer);
    Ok(())
}

fn section(out: &mut Vec<u8>, id: u8, contents: &[u8]) {
    out.push(id);
    leb128(
        out,
        u32::try_from(contents.len()).expect("modules are shorter"),
    );
    out.extend(contents);
}

fn leb128(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
