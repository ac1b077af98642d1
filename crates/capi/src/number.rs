//! The C types of enumerations.
//!
//! What a program passes in may be any number, and what callbacks are passed should be of the same type.
//! So in the signatures enumerations are numbers. The header calls each by its enumeration's name.

/// Any number; the header calls it `stateroom_abi`.
pub type any_stateroom_abi = i32;
/// Any number; the header calls it `stateroom_compilation`.
pub type any_stateroom_compilation = i32;
/// Any number; the header calls it `stateroom_fault`.
pub type any_stateroom_fault = i32;
/// Any number; the header calls it `stateroom_log_level`.
pub type any_stateroom_log_level = i32;
/// Any number; the header calls it `stateroom_on_fault`.
pub type any_stateroom_on_fault = i32;
/// Any number; the header calls it `stateroom_payload_buffer`.
pub type any_stateroom_payload_buffer = i32;
/// Any number; the header calls it `stateroom_recipient`.
pub type any_stateroom_recipient = i32;
/// Any number; the header calls it `stateroom_room_state`.
pub type any_stateroom_room_state = i32;
/// Any number; the header calls it `stateroom_send_result`.
pub type any_stateroom_send_result = i32;
/// Any number; the header calls it `stateroom_status`.
pub type any_stateroom_status = i32;
