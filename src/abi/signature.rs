//! The types of imports and exports.

use alloc::vec::Vec;
use core::fmt;

/// The type of a WebAssembly value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "the names are those of the WebAssembly standard"
)]
pub enum ValueType {
    I32,
    I64,
    F32,
    F64,
    V128,
    FuncRef,
    ExternRef,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::FuncRef => "funcref",
            Self::ExternRef => "externref",
        })
    }
}

/// The type of a function; displayed as `(i32, i32) -> i32`, of a long list the first 16.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The types of the parameters, in order.
    pub params: Vec<ValueType>,
    /// The types of the results, in order.
    pub results: Vec<ValueType>,
}

impl Signature {
    /// A signature from shorthand: `"iI:i"` takes an i32 and an i64 and returns an i32.
    pub(crate) fn from_shorthand(shorthand: &str) -> Self {
        let (params, results) = shorthand.split_once(':').unwrap_or((shorthand, ""));
        let types = |letters: &str| {
            letters
                .chars()
                .map(|c| {
                    if c == 'I' {
                        ValueType::I64
                    } else {
                        ValueType::I32
                    }
                })
                .collect()
        };
        Self {
            params: types(params),
            results: types(results),
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, &self.params)?;
        f.write_str(" -> ")?;
        match self.results.as_slice() {
            [one] => write!(f, "{one}"),
            results => write_list(f, results),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, types: &[ValueType]) -> fmt::Result {
    /// A function may have a thousand parameters.
    const MAX_TYPES: usize = 16;
    f.write_str("(")?;
    for (i, ty) in types.iter().take(MAX_TYPES).enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        write!(f, "{separator}{ty}")?;
    }
    if let Some(more @ 1..) = types.len().checked_sub(MAX_TYPES) {
        write!(f, ", and {more} more")?;
    }
    f.write_str(")")
}

/// The kind and type of an import or an export.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExternKind {
    /// A function of this type.
    Func(Signature),
    /// A linear memory.
    Memory,
    /// A table.
    Table,
    /// A global of this type.
    Global(ValueType),
}

impl fmt::Display for ExternKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Func(signature) => write!(f, "a function {signature}"),
            Self::Memory => f.write_str("a memory"),
            Self::Table => f.write_str("a table"),
            Self::Global(ty) => write!(f, "a global {ty}"),
        }
    }
}
