//! What the callback `log` is passed.

use crate::number::any_stateroom_log_level;
use core::ffi::c_char;

/// How important a line of the log is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum stateroom_log_level {
    /// An error.
    Error = 1,
    /// A warning: faults, lost outputs, what guests print to standard error.
    Warn = 2,
    /// Information: what guests print to standard output.
    Info = 3,
    /// Details.
    Debug = 4,
    /// More details.
    Trace = 5,
}

/// A line of the log. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_log_line {
    /// How important it is.
    pub level: any_stateroom_log_level,
    /// The line, in UTF-8 without a NUL or an end of line; what a guest printed is escaped.
    pub text: *const c_char,
    /// Its length in bytes.
    pub text_length: usize,
    /// Where it comes from: "guest" for what guests print. In UTF-8 without a NUL.
    pub target: *const c_char,
    /// Its length in bytes.
    pub target_length: usize,
}
