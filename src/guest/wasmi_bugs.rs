//! Instructions that the interpreter gets wrong.
//!
//! wasmi 2.0.0 misreads `v128.store8_lane` and `v128.store16_lane` whose offset has more than 16 bits,
//! and then reads beyond its own stack, which ends the process or worse. Compilers hardly ever make
//! such an offset, so a module that has one is refused.

use wasmparser::{FunctionBody, Operator, Parser, Payload};

/// The first such instruction of a module, by its name. Of a module that is not valid, the
/// interpreter says so; but each function is looked at, since it may look at them later.
pub(super) fn find_misread(wasm: &[u8]) -> Option<&'static str> {
    Parser::new(0)
        .parse_all(wasm)
        .map_while(Result::ok)
        .find_map(|payload| match payload {
            Payload::CodeSectionEntry(body) if may_have_lane_store(body.as_bytes()) => {
                misread_of(&body)
            }
            _ => None,
        })
}

fn misread_of(body: &FunctionBody<'_>) -> Option<&'static str> {
    // What follows an instruction that is not valid is never run.
    let operators = body
        .get_operators_reader()
        .ok()?
        .into_iter()
        .map_while(Result::ok);
    operators
        .filter_map(|operator| match operator {
            Operator::V128Store8Lane { memarg, .. } => Some((memarg.offset, "v128.store8_lane")),
            Operator::V128Store16Lane { memarg, .. } => Some((memarg.offset, "v128.store16_lane")),
            _ => None,
        })
        .find_map(|(offset, name)| (offset > u16::MAX.into()).then_some(name))
}

/// Whether the bytes of these instructions are there at all, as instructions or as something else:
/// the prefix of SIMD, then 0x58 or 0x59, which may be the first of several bytes of that number.
fn may_have_lane_store(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == 0xfd) {
        rest = &rest[at + 1..];
        if rest
            .first()
            .is_some_and(|next| matches!(next & 0x7f, 0x58 | 0x59))
        {
            return true;
        }
    }
    false
}
