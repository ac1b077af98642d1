//! The chart: for each row, how many times faster or slower this crate is than the JIT host, on a
//! logarithmic scale. Plain SVG, with colours that are legible on white and on black.

use super::table::{Group, Row, in_words};
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 30.0;
const LINE: f64 = 22.0;
/// Start of the bars, and the longest one's length.
const LABELS: f64 = 330.0;
const BARS: f64 = WIDTH - LABELS - 120.0;

pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| {
            matches!(
                row.group,
                Group::Start | Group::Events | Group::Compute | Group::Memory | Group::ServerSdk
            ) && row.figures.len() > 1
                && row.factor().is_some_and(f64::is_finite)
        })
        .collect();
    let logs = || rows.iter().filter_map(|row| row.factor()).map(f64::log10);
    let low = logs().fold(-0.5, f64::min);
    let high = logs().fold(0.5, f64::max);
    let x = |log: f64| LABELS + (log - low) / (high - low) * BARS;
    let height = 70.0 + LINE * rows.len() as f64;
    // The longest labels start left of the origin.
    let whole_width = MARGIN + WIDTH;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-{MARGIN} 0 {whole_width} {height}\" width=\"{whole_width}\" \
         height=\"{height}\" font-family=\"-apple-system, Segoe UI, Helvetica, Arial, sans-serif\" \
         font-size=\"13\" role=\"img\" aria-label=\"This crate against the JIT host, by row\">\n\
         <g fill=\"#768390\">\n\
         <text x=\"{}\" y=\"20\" text-anchor=\"middle\">the JIT host is better ◂ ▸ this crate is better</text>\n",
        x(0.0).clamp(LABELS + 60.0, WIDTH - 260.0),
    );
    let bottom = height - 28.0;
    for exponent in low.ceil() as i32..=high.floor() as i32 {
        let tick_x = x(f64::from(exponent));
        let label = match exponent {
            0.. => format!("{}×", 10_u64.pow(exponent.unsigned_abs())),
            _ => format!("1/{}", 10_u64.pow(exponent.unsigned_abs())),
        };
        let width = if exponent == 0 { 1.5 } else { 0.5 };
        let _ = writeln!(
            text,
            "<line x1=\"{tick_x:.1}\" x2=\"{tick_x:.1}\" y1=\"30\" y2=\"{bottom:.1}\" stroke=\"#768390\" \
             stroke-width=\"{width}\"/><text x=\"{tick_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (line, row) in rows.iter().enumerate() {
        let factor = row.factor().unwrap_or(1.0);
        let top = 36.0 + LINE * line as f64;
        let (from, to) = (x(0.0), x(factor.log10()));
        let color = if factor >= 1.0 { "#2da44e" } else { "#d4762c" };
        let (label_x, anchor) = if factor >= 1.0 {
            (to + 6.0, "start")
        } else {
            (from + 6.0, "start")
        };
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"2\" fill=\"{color}\"/>\
             <text x=\"{label_x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            LABELS - 10.0,
            top + 12.0,
            escape(&row.title),
            from.min(to),
            top,
            (to - from).abs().max(1.0),
            top + 12.0,
            in_words(factor, row.unit),
        );
    }
    text.push_str("</g>\n</svg>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
