//! Echo: everything that a client says is echoed to that client alone.
//!
//!   from a client                          reply            to
//!   a text, also an empty one              the same text    the sender
//!   a binary message, also an empty one    the same bytes   the sender

const stateroom = @import("stateroom.zig");

comptime {
    stateroom.serve(@This());
}

pub fn text(client: i32, bytes: []const u8) void {
    stateroom.sendText(client, bytes);
}

pub fn binary(client: i32, bytes: []const u8) void {
    stateroom.sendBinary(client, bytes);
}
