//! A counter: one number that everybody in the room shares.

const std = @import("std");
const stateroom = @import("stateroom.zig");

comptime {
    stateroom.serve(@This());
}

/// So that its message is in the host's log.
pub const panic = stateroom.panic;

/// The state of the room.
var count: i64 = 0;

pub fn connect(client: i32) void {
    sendCount(client);
}

pub fn text(client: i32, bytes: []const u8) void {
    // Clients can send anything.
    if (std.mem.eql(u8, bytes, "+")) {
        count +|= 1;
    } else if (std.mem.eql(u8, bytes, "-")) {
        count -|= 1;
    } else {
        stateroom.sendText(client, "Say + or -.");
        return;
    }
    sendCount(stateroom.everybody);
}

fn sendCount(recipient: i32) void {
    var buffer: [20]u8 = undefined; // a sign and 19 digits at most
    const digits = std.fmt.bufPrint(&buffer, "{d}", .{count}) catch unreachable;
    stateroom.sendText(recipient, digits);
}
