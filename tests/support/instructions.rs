//! Instructions of WebAssembly as text, for tests and benches that run each of them.

pub const NUMBERS: [&str; 4] = ["i32", "i64", "f32", "f64"];

/// An instruction, the types of its operands, and whether it has a result.
pub struct Instruction {
    pub text: String,
    pub operands: Vec<&'static str>,
    pub has_result: bool,
}

fn instruction(
    text: impl Into<String>,
    operands: &[&'static str],
    has_result: bool,
) -> Instruction {
    Instruction {
        text: text.into(),
        operands: operands.to_vec(),
        has_result,
    }
}

/// Definitions that the instructions refer to.
pub const DEFINITIONS: &str = "(table $t 8 funcref) (elem (i32.const 0) $none) (elem $e func $none)
    (data $d \"data\") (type $none (func)) (func $none) (func $one (param i32) (result i32) (local.get 0))
    (global $i32 (mut i32) (i32.const 1)) (global $i64 (mut i64) (i64.const 1))
    (global $f32 (mut f32) (f32.const 1)) (global $f64 (mut f64) (f64.const 1))
    (func $tail (param i32) (if (local.get 0) (then
        (return_call $tail (i32.sub (local.get 0) (i32.const 1))))))
    (func $tail_indirect (param i32) (if (local.get 0) (then
        (return_call_indirect $t (param i32) (i32.sub (local.get 0) (i32.const 1)) (i32.const 7)))))
    (elem (i32.const 7) $tail_indirect)";

/// A function for each source of the operands: a local, a constant, or a result.
pub fn guests(instruction: &Instruction, times: u32) -> Vec<String> {
    type Source = fn(&str) -> String;
    let local: Source = |ty| format!("(local.get ${ty})");
    let constant: Source = |ty| match ty {
        "v128" => "(v128.const i32x4 1 2 3 4)".to_owned(),
        ty => format!("({ty}.const 3)"),
    };
    let result: Source = |ty| match ty {
        "v128" => "(v128.not (local.get $v128))".to_owned(),
        "i32" | "i64" => format!("({ty}.or (local.get ${ty}) (local.get ${ty}))"),
        ty => format!("({ty}.abs (local.get ${ty}))"),
    };
    let sources = [
        [local, local],
        [local, constant],
        [constant, local],
        [result, local],
        [local, result],
    ];
    let mut guests: Vec<String> = sources
        .iter()
        .map(|[first, others]| {
            let operands: String = instruction
                .operands
                .iter()
                .enumerate()
                .map(|(i, ty)| if i == 0 { first(ty) } else { others(ty) })
                .collect();
            repeated(&statement(instruction, &operands), times)
        })
        .collect();
    guests.dedup();
    guests
}

/// The instruction with these operands, as a statement.
fn statement(instruction: &Instruction, operands: &str) -> String {
    let call = format!("({} {operands})", instruction.text);
    if instruction.has_result {
        format!("(drop {call})")
    } else {
        call
    }
}

/// A function body that runs `body` so many times.
pub fn repeated(body: &str, times: u32) -> String {
    let v128 = if cfg!(feature = "simd") {
        "(local $v128 v128)"
    } else {
        ""
    };
    format!(
        "(local $n i32) (local $i32 i32) (local $i64 i64) (local $f32 f32) (local $f64 f64) {v128}
        (local.set $i32 (i32.const 8)) (local.set $i64 (i64.const 8)) (local.set $f32 (f32.const 8))
        (local.set $f64 (f64.const 8))
        (loop $next {body}
            (br_if $next
                (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {times}))))"
    )
}

pub fn numbers() -> Vec<Instruction> {
    let mut all = Vec::new();
    for ty in ["i32", "i64"] {
        for name in "clz ctz popcnt eqz extend8_s extend16_s".split(' ') {
            all.push(instruction(format!("{ty}.{name}"), &[ty], true));
        }
        let binary = "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr \
            eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u";
        for name in binary.split_whitespace() {
            all.push(instruction(format!("{ty}.{name}"), &[ty, ty], true));
        }
        for from in ["f32", "f64"] {
            for name in ["trunc", "trunc_sat"] {
                for sign in ["s", "u"] {
                    all.push(instruction(
                        format!("{ty}.{name}_{from}_{sign}"),
                        &[from],
                        true,
                    ));
                    all.push(instruction(
                        format!("{from}.convert_{ty}_{sign}"),
                        &[ty],
                        true,
                    ));
                }
            }
        }
    }
    for ty in ["f32", "f64"] {
        for name in "abs neg ceil floor trunc nearest sqrt".split(' ') {
            all.push(instruction(format!("{ty}.{name}"), &[ty], true));
        }
        for name in "add sub mul div min max copysign eq ne lt gt le ge".split(' ') {
            all.push(instruction(format!("{ty}.{name}"), &[ty, ty], true));
        }
    }
    for (name, from) in [
        ("i32.wrap_i64", "i64"),
        ("i64.extend_i32_s", "i32"),
        ("i64.extend_i32_u", "i32"),
        ("i64.extend32_s", "i64"),
        ("f32.demote_f64", "f64"),
        ("f64.promote_f32", "f32"),
        ("i32.reinterpret_f32", "f32"),
        ("i64.reinterpret_f64", "f64"),
        ("f32.reinterpret_i32", "i32"),
        ("f64.reinterpret_i64", "i64"),
    ] {
        all.push(instruction(name, &[from], true));
    }
    for ty in NUMBERS {
        all.push(instruction("select", &[ty, ty, "i32"], true));
        all.push(instruction(format!("local.set ${ty}"), &[ty], false));
        all.push(instruction(format!("local.tee ${ty}"), &[ty], true));
        all.push(instruction(format!("global.set ${ty}"), &[ty], false));
        all.push(instruction(format!("global.get ${ty}"), &[], true));
    }
    all
}

pub fn memory() -> Vec<Instruction> {
    let mut all = Vec::new();
    for ty in NUMBERS {
        for offset in ["", " offset=40000"] {
            all.push(instruction(format!("{ty}.load{offset}"), &["i32"], true));
            all.push(instruction(
                format!("{ty}.store{offset}"),
                &["i32", ty],
                false,
            ));
        }
    }
    for (ty, widths) in [("i32", &["8", "16"][..]), ("i64", &["8", "16", "32"])] {
        for width in widths {
            all.push(instruction(format!("{ty}.load{width}_s"), &["i32"], true));
            all.push(instruction(format!("{ty}.load{width}_u"), &["i32"], true));
            all.push(instruction(
                format!("{ty}.store{width}"),
                &["i32", ty],
                false,
            ));
        }
    }
    let three = ["i32", "i32", "i32"];
    all.extend([
        instruction("memory.size", &[], true),
        instruction("memory.grow (i32.const 0)", &[], true),
        // Granted until the limit is reached, refused by the limit, by WebAssembly's own, and at once.
        instruction("memory.grow (i32.const 1)", &[], true),
        instruction("memory.grow (i32.const 60000)", &[], true),
        instruction("memory.grow (i32.const -1)", &[], true),
        instruction("memory.grow", &["i32"], true),
        instruction(grow_often("memory.grow", 64), &[], true),
        instruction("memory.fill", &three, false),
        instruction("memory.copy", &three, false),
        instruction(
            "memory.init $d (i32.const 0) (i32.const 0) (i32.const 1)",
            &[],
            false,
        ),
        instruction("data.drop $d", &[], false),
        instruction("elem.drop $e", &[], false),
        instruction("table.get $t (i32.const 1)", &[], true),
        instruction("table.set $t (i32.const 1) (ref.null func)", &[], false),
        instruction("table.size $t", &[], true),
        instruction("table.grow $t (ref.null func) (i32.const 0)", &[], true),
        instruction("table.grow $t (ref.null func) (i32.const 1)", &[], true),
        instruction("table.grow $t (ref.null func) (i32.const 8)", &[], true),
        instruction("table.grow $t (ref.null func) (i32.const -1)", &[], true),
        instruction(grow_often("table.grow $t (ref.null func)", 64), &[], true),
        instruction(
            "table.fill $t (i32.const 1) (ref.null func) (i32.const 2)",
            &[],
            false,
        ),
        instruction(
            "table.copy $t $t (i32.const 1) (i32.const 2) (i32.const 2)",
            &[],
            false,
        ),
        instruction(
            "table.init $t $e (i32.const 1) (i32.const 0) (i32.const 1)",
            &[],
            false,
        ),
        instruction("ref.func $none", &[], true),
        instruction("ref.is_null (ref.null func)", &[], true),
    ]);
    all
}

/// The instruction applied to its own result, so many times, after a growth that is refused: the
/// shortest code that grows so often.
pub fn grow_often(grow: &str, times: usize) -> String {
    let nested = format!("({grow} ").repeat(times - 1);
    format!("{grow} {nested} (i32.const -1) {}", ")".repeat(times - 1))
}

pub fn control() -> Vec<Instruction> {
    vec![
        instruction("nop", &[], false),
        instruction("block (br 0)", &[], false),
        instruction("block (br_if 0 (local.get $n))", &[], false),
        instruction("block (br_if 0 (i32.eqz (local.get $n)))", &[], false),
        instruction(
            "block (br_if 0 (i64.lt_s (local.get $i64) (i64.const 5)))",
            &[],
            false,
        ),
        instruction(
            "block (br_if 0 (f32.lt (local.get $f32) (local.get $f32)))",
            &[],
            false,
        ),
        instruction(
            "block (br_if 0 (f64.ge (local.get $f64) (local.get $f64)))",
            &[],
            false,
        ),
        instruction("block (block (br_table 0 1 (local.get $n)))", &[], false),
        instruction(
            "block (result i32) (br_table 0 0 (local.get $i32) (local.get $n))",
            &[],
            true,
        ),
        instruction(
            "block (result i32 i64) (br_table 0 0 (local.get $i32) (local.get $i64) (local.get $n))) (drop",
            &[],
            true,
        ),
        instruction("if (local.get $n) (then (nop)) (else (nop))", &[], false),
        instruction("call $none", &[], false),
        instruction("call $one (local.get $n)", &[], true),
        instruction("call_indirect $t (type $none) (i32.const 0)", &[], false),
        instruction("call $tail (i32.const 1)", &[], false),
        instruction("call $tail_indirect (i32.const 1)", &[], false),
    ]
}

#[cfg(feature = "simd")]
pub fn vectors() -> Vec<Instruction> {
    const V: &str = "v128";
    let mut all = Vec::new();
    push(&mut all, "v128", "not any_true", &[V]);
    push(&mut all, "v128", "and andnot or xor", &[V, V]);
    push(&mut all, "v128", "bitselect", &[V, V, V]);
    push(
        &mut all,
        "i8x16 i16x8 i32x4 i64x2",
        "abs neg all_true bitmask",
        &[V],
    );
    push(
        &mut all,
        "i8x16 i16x8 i32x4 i64x2",
        "eq ne lt_s gt_s le_s ge_s add sub",
        &[V, V],
    );
    push(
        &mut all,
        "i8x16 i16x8 i32x4",
        "lt_u gt_u le_u ge_u min_s min_u max_s max_u",
        &[V, V],
    );
    push(
        &mut all,
        "i8x16 i16x8",
        "add_sat_s add_sat_u sub_sat_s sub_sat_u avgr_u",
        &[V, V],
    );
    push(&mut all, "i16x8 i32x4 i64x2", "mul", &[V, V]);
    push(
        &mut all,
        "i8x16 i16x8 i32x4 i64x2",
        "shl shr_s shr_u",
        &[V, "i32"],
    );
    push(
        &mut all,
        "i8x16 i16x8 i32x4 i64x2",
        "relaxed_laneselect",
        &[V, V, V],
    );
    push(&mut all, "i8x16", "popcnt", &[V]);
    push(
        &mut all,
        "i8x16",
        "narrow_i16x8_s narrow_i16x8_u swizzle relaxed_swizzle",
        &[V, V],
    );
    for (to, from) in [("i16x8", "i8x16"), ("i32x4", "i16x8"), ("i64x2", "i32x4")] {
        for sign in ["s", "u"] {
            for half in ["low", "high"] {
                push(&mut all, to, &format!("extend_{half}_{from}_{sign}"), &[V]);
                push(
                    &mut all,
                    to,
                    &format!("extmul_{half}_{from}_{sign}"),
                    &[V, V],
                );
            }
        }
    }
    for sign in ["s", "u"] {
        push(
            &mut all,
            "i16x8",
            &format!("extadd_pairwise_i8x16_{sign}"),
            &[V],
        );
        push(&mut all, "i16x8", &format!("narrow_i32x4_{sign}"), &[V, V]);
        push(
            &mut all,
            "i32x4",
            &format!("extadd_pairwise_i16x8_{sign}"),
            &[V],
        );
        push(
            &mut all,
            "i32x4",
            &format!("trunc_sat_f32x4_{sign} trunc_sat_f64x2_{sign}_zero"),
            &[V],
        );
        push(
            &mut all,
            "i32x4",
            &format!("relaxed_trunc_f32x4_{sign} relaxed_trunc_f64x2_{sign}_zero"),
            &[V],
        );
        push(&mut all, "f32x4", &format!("convert_i32x4_{sign}"), &[V]);
        push(
            &mut all,
            "f64x2",
            &format!("convert_low_i32x4_{sign}"),
            &[V],
        );
    }
    push(
        &mut all,
        "i16x8",
        "q15mulr_sat_s relaxed_q15mulr_s relaxed_dot_i8x16_i7x16_s",
        &[V, V],
    );
    push(&mut all, "i32x4", "dot_i16x8_s", &[V, V]);
    push(
        &mut all,
        "i32x4",
        "relaxed_dot_i8x16_i7x16_add_s",
        &[V, V, V],
    );
    push(
        &mut all,
        "f32x4 f64x2",
        "abs neg sqrt ceil floor trunc nearest",
        &[V],
    );
    push(
        &mut all,
        "f32x4 f64x2",
        "eq ne lt gt le ge add sub mul div min max pmin pmax",
        &[V, V],
    );
    push(&mut all, "f32x4 f64x2", "relaxed_min relaxed_max", &[V, V]);
    push(
        &mut all,
        "f32x4 f64x2",
        "relaxed_madd relaxed_nmadd",
        &[V, V, V],
    );
    push(&mut all, "f32x4", "demote_f64x2_zero", &[V]);
    push(&mut all, "f64x2", "promote_low_f32x4", &[V]);
    push(
        &mut all,
        "v128",
        "load load8x8_s load8x8_u load16x4_s load16x4_u load32x2_s load32x2_u",
        &["i32"],
    );
    push(
        &mut all,
        "v128",
        "load8_splat load16_splat load32_splat load64_splat load32_zero load64_zero",
        &["i32"],
    );
    for (shape, lane) in [
        ("i8x16", "i32"),
        ("i16x8", "i32"),
        ("i32x4", "i32"),
        ("i64x2", "i64"),
        ("f32x4", "f32"),
        ("f64x2", "f64"),
    ] {
        push(&mut all, shape, "splat", &[lane]);
        all.push(instruction(
            format!("{shape}.replace_lane 1"),
            &[V, lane],
            true,
        ));
        let signs: &[&str] = if shape.starts_with("i8") || shape.starts_with("i16") {
            &["_s", "_u"]
        } else {
            &[""]
        };
        all.extend(
            signs
                .iter()
                .map(|sign| instruction(format!("{shape}.extract_lane{sign} 1"), &[V], true)),
        );
    }
    for width in [8, 16, 32, 64] {
        all.push(instruction(
            format!("v128.load{width}_lane 1"),
            &["i32", V],
            true,
        ));
        all.push(instruction(
            format!("v128.store{width}_lane 1"),
            &["i32", V],
            false,
        ));
    }
    for (name, operands) in [("const i32x4 1 2 3 4", &[][..]), ("store", &["i32", V])] {
        all.push(instruction(
            format!("v128.{name}"),
            operands,
            operands.is_empty(),
        ));
    }
    all.push(instruction(
        "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31",
        &[V, V],
        true,
    ));
    for shape in ["local.set $v128", "global.set $v128"] {
        all.push(instruction(shape, &[V], false));
    }
    all.push(instruction("select (result v128)", &[V, V, "i32"], true));
    all
}

#[cfg(feature = "simd")]
fn push(all: &mut Vec<Instruction>, shapes: &str, names: &str, operands: &[&'static str]) {
    for shape in shapes.split_whitespace() {
        let names = names.split_whitespace();
        all.extend(names.map(|name| instruction(format!("{shape}.{name}"), operands, true)));
    }
}
