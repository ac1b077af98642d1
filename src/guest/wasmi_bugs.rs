//! Workarounds for bugs of wasmi 2.0.0; to be deleted with the bugs.

pub(super) use self::far_stores::separate_operands;
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

/// wasmi panics when it translates a store of an integer with an offset of more than 16 bits, or to
/// any memory but the first, whose address and value are both in its register: the same local, such as
/// in `table[i] = i`. An empty block before the store moves both out of the register, and has no other
/// effect.
mod far_stores {
    use crate::guest::rewrite::{push_leb128, push_section};
    use alloc::vec::Vec;
    use wasmparser::{FunctionBody, MemArg, Operator, Parser, Payload};

    const CODE_SECTION: u8 = 10;
    /// `block`, without results, and `end`.
    const EMPTY_BLOCK: [u8; 3] = [0x02, 0x40, 0x0b];

    /// The module with an empty block before each such store. None if there is none, or the module is
    /// invalid, which the engine reports.
    #[inline(never)]
    pub(in crate::guest) fn separate_operands(wasm: &[u8]) -> Option<Vec<u8>> {
        let mut stores = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            if let Payload::CodeSectionEntry(body) = payload.ok()? {
                find(&body, &mut stores);
            }
        }
        if stores.is_empty() {
            return None;
        }
        rewrite(wasm, &stores)
    }

    /// What is on top of the stack.
    #[derive(Clone, Copy)]
    enum Top {
        Local(u32),
        Constant,
        Unknown,
    }

    /// Finds where a function has such stores, and more: all whose operands may be the same local, since
    /// that was used twice since the register was certainly written or given up. Nothing after an invalid
    /// instruction ever runs.
    fn find(body: &FunctionBody<'_>, stores: &mut Vec<usize>) {
        let Ok(mut reader) = body.get_operators_reader() else {
            return;
        };
        let mut used = UsedLocals::default();
        let mut top = Top::Unknown;
        while !reader.eof() {
            let at = reader.original_position();
            let Ok(operator) = reader.read() else { return };
            if let Some(memarg) = stored_integer(&operator)
                && is_far(memarg)
                && used.may_be_both_operands(top)
            {
                stores.push(at);
            }
            top = match operator {
                Operator::LocalGet { local_index } | Operator::LocalTee { local_index } => {
                    used.push(local_index);
                    Top::Local(local_index)
                }
                Operator::LocalSet { local_index } => {
                    used.push(local_index);
                    Top::Unknown
                }
                // They may leave the value where it is.
                Operator::Nop | Operator::I64ExtendI32U | Operator::I32WrapI64 => top,
                Operator::I32Const { .. } | Operator::I64Const { .. } => Top::Constant,
                ref operator => {
                    if frees_register(operator) {
                        used.clear();
                    }
                    Top::Unknown
                }
            };
        }
    }

    /// The locals that were used since the register was freed.
    #[derive(Default)]
    struct UsedLocals(Vec<u32>);

    impl UsedLocals {
        /// More than code has in a row; beyond, all are taken for the same.
        const MAX: usize = 64;

        fn push(&mut self, local: u32) {
            if self.0.len() <= Self::MAX {
                self.0.push(local);
            }
        }

        fn clear(&mut self) {
            self.0.clear();
        }

        /// Whether a store's value and its address may both be one of them.
        fn may_be_both_operands(&self, value: Top) -> bool {
            let is_used_twice =
                |local: &u32| self.0.iter().filter(|used| *used == local).nth(1).is_some();
            match value {
                Top::Constant => false,
                _ if self.0.len() > Self::MAX => true,
                Top::Local(local) => is_used_twice(&local),
                Top::Unknown => self.0.iter().any(is_used_twice),
            }
        }
    }

    /// Where an instruction stores an integer, if it does.
    fn stored_integer<'o>(operator: &'o Operator<'_>) -> Option<&'o MemArg> {
        match operator {
            Operator::I32Store { memarg }
            | Operator::I64Store { memarg }
            | Operator::I32Store8 { memarg }
            | Operator::I32Store16 { memarg }
            | Operator::I64Store8 { memarg }
            | Operator::I64Store16 { memarg }
            | Operator::I64Store32 { memarg } => Some(memarg),
            _ => None,
        }
    }

    /// Whether an instruction certainly leaves no earlier operand in the register for integers. Others
    /// may be folded into a constant or into one of their operands, or have results elsewhere.
    const fn frees_register(operator: &Operator<'_>) -> bool {
        matches!(
            operator,
            Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::If { .. }
                | Operator::Else
                | Operator::End
                | Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::I32Load { .. }
                | Operator::I64Load { .. }
                | Operator::I32Load8S { .. }
                | Operator::I32Load8U { .. }
                | Operator::I32Load16S { .. }
                | Operator::I32Load16U { .. }
        )
    }

    fn is_far(memarg: &MemArg) -> bool {
        memarg.offset > u16::MAX.into() || memarg.memory != 0
    }

    fn rewrite(wasm: &[u8], stores: &[usize]) -> Option<Vec<u8>> {
        let added = stores.len() * EMPTY_BLOCK.len();
        let mut rewritten = Vec::with_capacity(wasm.len() + added + 256);
        // The end of the section before; the magic number and the version come first.
        let mut end = 8;
        rewritten.extend_from_slice(wasm.get(..end)?);
        let (mut code, mut code_end) = (Vec::new(), 0);
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            if let Payload::CodeSectionStart { count, range, .. } = &payload {
                push_leb128(&mut code, *count);
                code_end = range.end;
            }
            if let Payload::CodeSectionEntry(body) = &payload {
                let (mut separated, mut from) = (Vec::new(), body.range().start);
                let first = stores.partition_point(|at| *at < from);
                let all = stores.get(first..)?.iter();
                for at in all.take_while(|at| **at < body.range().end) {
                    separated.extend_from_slice(wasm.get(from..*at)?);
                    separated.extend_from_slice(&EMPTY_BLOCK);
                    from = *at;
                }
                separated.extend_from_slice(wasm.get(from..body.range().end)?);
                push_leb128(&mut code, u32::try_from(separated.len()).ok()?);
                code.extend_from_slice(&separated);
                if body.range().end == code_end {
                    push_section(&mut rewritten, CODE_SECTION, &code)?;
                }
            }
            if let Some((id, range)) = payload.as_section() {
                if id != CODE_SECTION {
                    rewritten.extend_from_slice(wasm.get(end..range.end)?);
                }
                end = range.end;
            }
        }
        Some(rewritten)
    }
}
