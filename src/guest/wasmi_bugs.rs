//! Workarounds for bugs of wasmi 2.0.0; to be deleted with the bugs.

use wasmparser::{Operator, Parser, Payload};

#[cfg(feature = "simd")]
pub(super) use self::lane_stores::find_misread_store;

/// Elements by which a table may grow at once while the guest runs.
///
/// wasmi resumes at the wrong instruction when `table.grow` itself runs out of fuel. It charges one
/// unit for each eight elements, so growing by up to seven is free and never pauses.
pub(super) const MAX_TABLE_GROWTH: usize = 7;

/// Fuel for `memory.grow` and `table.grow`, which is high because of their cost in stack.
///
/// Where wasmi dispatches by tail calls, each of these instructions that is asked for anything but 0
/// returns by a call instead of a jump, and leaves about 200 bytes on the host's stack until the
/// guest is paused or done. With this price, and at most [`MAX_UNINTERRUPTED_FUEL`] before a pause,
/// there are never more than some 600 of them, which fit a thread of 256 KiB.
pub(super) const GROW_COST: u8 = u8::MAX;

/// Fuel after which the interpreter is left, so that the host's stack is as it was, and entered
/// again, within the same slice.
pub(super) const MAX_UNINTERRUPTED_FUEL: u64 = 1 << 17;

/// Instructions that grow a memory or a table in one function. Compilers emit one or two; as the fuel
/// of a function's straight code is taken all at once, very many would run without a pause.
pub(super) const MAX_GROWS_IN_FUNCTION: u64 = 64;

/// How many instructions that grow something the function has that has most of them, in a module with
/// so many memories.
pub(super) fn count_grows(wasm: &[u8], memories: usize) -> u64 {
    let bodies = Parser::new(0)
        .parse_all(wasm)
        .map_while(Result::ok)
        .filter_map(|payload| match payload {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
    bodies
        .filter(|body| may_have_many_grows(body.as_bytes(), memories))
        .map(|body| {
            let operators = body.get_operators_reader().into_iter().flatten();
            let is_grow = |operator: &Operator<'_>| {
                matches!(
                    operator,
                    Operator::MemoryGrow { .. } | Operator::TableGrow { .. }
                )
            };
            operators.map_while(Result::ok).filter(is_grow).count() as u64
        })
        .max()
        .unwrap_or(0)
}

/// A quick search for the bytes of these instructions; it may have false positives.
fn may_have_many_grows(body: &[u8], memories: usize) -> bool {
    // The index of a memory or table follows, in one byte or as a longer LEB128.
    let pairs = body.windows(2).filter(|pair| match pair {
        [0x40, index] => usize::from(index & 0x7f) < memories,
        _ => matches!(pair, [0xfc, 0x0f | 0x8f]),
    });
    pairs.count() as u64 > MAX_GROWS_IN_FUNCTION
}

/// wasmi misreads `v128.store8_lane` and `v128.store16_lane` with an offset of more than 16 bits or
/// to any memory but the first, and then reads beyond its own stack, which is undefined behaviour.
/// Compilers hardly ever emit such instructions, so a module that has one is refused.
#[cfg(feature = "simd")]
mod lane_stores {
    use wasmparser::{FunctionBody, Operator, Parser, Payload};

    /// The name of the first such instruction of a module. The interpreter reports invalid modules;
    /// but all functions are checked, since it may compile them later.
    pub(in crate::guest) fn find_misread_store(wasm: &[u8]) -> Option<&'static str> {
        Parser::new(0)
            .parse_all(wasm)
            .map_while(Result::ok)
            .find_map(|payload| match payload {
                Payload::CodeSectionEntry(body) if may_have_lane_store(body.as_bytes()) => {
                    find_in(&body)
                }
                _ => None,
            })
    }

    fn find_in(body: &FunctionBody<'_>) -> Option<&'static str> {
        // Nothing after an invalid instruction ever runs.
        let operators = body
            .get_operators_reader()
            .ok()?
            .into_iter()
            .map_while(Result::ok);
        operators
            .filter_map(|operator| match operator {
                Operator::V128Store8Lane { memarg, .. } => Some((memarg, "v128.store8_lane")),
                Operator::V128Store16Lane { memarg, .. } => Some((memarg, "v128.store16_lane")),
                _ => None,
            })
            .find_map(|(memarg, name)| {
                (memarg.offset > u16::MAX.into() || memarg.memory != 0).then_some(name)
            })
    }

    /// A quick search for the bytes of these instructions: the prefix of SIMD, then 0x58 or 0x59,
    /// possibly as the first byte of a longer LEB128. It may have false positives.
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
}
