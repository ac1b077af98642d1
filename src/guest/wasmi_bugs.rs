//! Workarounds for bugs of wasmi 2.0.0; to be deleted with the bugs.

#[cfg(feature = "simd")]
pub(super) use self::lane_stores::find_misread_store;

/// Elements by which a table may grow at once while the guest runs.
///
/// wasmi resumes at the wrong instruction when `table.grow` itself runs out of fuel. It charges one
/// unit for each eight elements, so growing by up to seven is free and never pauses.
pub(super) const MAX_TABLE_GROWTH: usize = 7;

/// Fuel for `memory.grow` and `table.grow` with the call that they are replaced by, which is high
/// because of their cost in stack; see [`grow`](super::grow).
const GROW_COST: u8 = u8::MAX;

/// A call, the entry of a function and a parameter are a part of the price.
pub(super) const MEMORY_GROW_COST: u8 = GROW_COST - 3;
pub(super) const TABLE_GROW_COST: u8 = GROW_COST - 4;

/// Fuel after which the interpreter is left, so that the host's stack is as it was, and entered
/// again, within the same slice. It pays for some 500 growths, which fit a thread of 256 KiB.
pub(super) const MAX_UNINTERRUPTED_FUEL: u64 = 1 << 17;

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
