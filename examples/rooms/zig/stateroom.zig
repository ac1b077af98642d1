//! The ABI 0.2 of Stateroom for rooms in Zig. Copy this file beside your room.
//!
//! A room is a file with functions for what it cares about, and hands itself to `serve`:
//!
//!     const stateroom = @import("stateroom.zig");
//!     comptime { stateroom.serve(@This()); }
//!
//!     pub fn open(id: []const u8) void
//!     pub fn connect(client: i32) void
//!     pub fn disconnect(client: i32) void
//!     pub fn text(client: i32, bytes: []const u8) void
//!     pub fn binary(client: i32, bytes: []const u8) void
//!     pub fn timer() void
//!
//! All of them may be left out. The ids of clients are greater than zero. Texts and ids are UTF-8.
//! Bytes are the host's, and valid until the function returns.
//!
//! A room handles one event at a time and is never re-entered. Its state is in its own variables,
//! and `std.heap.wasm_allocator` is there for what grows.

const std = @import("std");

/// The recipient that stands for all clients.
pub const everybody: i32 = 0;

/// The recipient that stands for all clients but one.
pub fn everybodyBut(client: i32) i32 {
    return -client;
}

/// Sends a text, which has to be UTF-8. The host copies it before it returns.
pub fn sendText(recipient: i32, bytes: []const u8) void {
    host.send_message(recipient, bytes.ptr, bytes.len);
}

/// Sends a binary message. The host copies it before it returns.
pub fn sendBinary(recipient: i32, bytes: []const u8) void {
    host.send_binary(recipient, bytes.ptr, bytes.len);
}

/// Requests one call of `timer` after this many milliseconds. There is one timer: setting it again
/// replaces it, and 0 cancels it.
pub fn setTimer(milliseconds: u32) void {
    host.set_timer(milliseconds);
}

/// Prints a line to the host's log, as far as it fits into 256 bytes. A room that prints imports a
/// function of WASI.
pub fn print(comptime format: []const u8, args: anytype) void {
    var buffer: [256]u8 = undefined;
    const line = std.fmt.bufPrint(&buffer, format ++ "\n", args) catch &buffer;
    const iovec: wasi.Iovec = .{ .bytes = line.ptr, .len = line.len };
    var written: usize = undefined;
    _ = wasi.fd_write(wasi.stderr, &iovec, 1, &written);
}

/// For rooms that say `pub const panic = stateroom.panic;`: the message of a panic is printed.
pub const panic = std.debug.FullPanic(printAndTrap);

fn printAndTrap(message: []const u8, _: ?usize) noreturn {
    print("panic: {s}", .{message});
    @trap();
}

const wasi = struct {
    const stderr: u32 = 2;
    const Iovec = extern struct { bytes: [*]const u8, len: usize };
    extern "wasi_snapshot_preview1" fn fd_write(fd: u32, iovecs: *const Iovec, count: usize, written: *usize) u32;
};

const host = struct {
    extern "env" fn send_message(recipient: i32, bytes: [*]const u8, len: usize) void;
    extern "env" fn send_binary(recipient: i32, bytes: [*]const u8, len: usize) void;
    extern "env" fn set_timer(milliseconds: u32) void;
};

/// Exports what a room has, under the names of the ABI.
pub fn serve(comptime Room: type) void {
    const exports = struct {
        fn initialize(id: [*]const u8, len: usize) callconv(.c) void {
            if (@hasDecl(Room, "open")) Room.open(id[0..len]);
        }
        fn connect(client: i32) callconv(.c) void {
            if (@hasDecl(Room, "connect")) Room.connect(client);
        }
        fn disconnect(client: i32) callconv(.c) void {
            if (@hasDecl(Room, "disconnect")) Room.disconnect(client);
        }
        fn message(client: i32, bytes: [*]const u8, len: usize) callconv(.c) void {
            if (@hasDecl(Room, "text")) Room.text(client, bytes[0..len]);
        }
        fn binary(client: i32, bytes: [*]const u8, len: usize) callconv(.c) void {
            if (@hasDecl(Room, "binary")) Room.binary(client, bytes[0..len]);
        }
        fn timer() callconv(.c) void {
            if (@hasDecl(Room, "timer")) Room.timer();
        }
    };
    @export(&exports.initialize, .{ .name = "initialize" });
    @export(&exports.connect, .{ .name = "connect" });
    @export(&exports.disconnect, .{ .name = "disconnect" });
    @export(&exports.message, .{ .name = "message" });
    @export(&exports.binary, .{ .name = "binary" });
    @export(&exports.timer, .{ .name = "timer" });
}

// Which ABI this is. The host reads the numbers at the addresses that these exports are.
export const JAMSOCKET_API_VERSION: i32 = 1;
export const JAMSOCKET_API_PROTOCOL: i32 = 0;

// The host allocates memory for a message here. After null the message is not delivered.
export fn jam_malloc(len: usize) ?[*]u8 {
    const bytes = std.heap.wasm_allocator.alloc(u8, blockLen(len)) catch return null;
    return bytes.ptr;
}

export fn jam_free(start: ?[*]u8, len: usize) void {
    const bytes = start orelse return;
    std.heap.wasm_allocator.free(bytes[0..blockLen(len)]);
}

/// Says that the host may keep the block of a message for the next one, which saves it two calls:
/// nobody else uses a block until it is freed. It is never called.
export fn stateroom_keep_payload_buffer() void {}

/// Zig's allocators return no address in memory for a slice of no bytes.
fn blockLen(len: usize) usize {
    return @max(len, 1);
}
