//! Builds the room: zig build

const std = @import("std");

pub fn build(b: *std.Build) void {
    const room = b.addExecutable(.{
        .name = "my-room",
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/room.zig"),
            .target = b.resolveTargetQuery(.{ .cpu_arch = .wasm32, .os_tag = .freestanding }),
            // Keeps the checks, so that a mistake traps.
            .optimize = .ReleaseSafe,
            .strip = true,
        }),
    });
    // A library without a main, whose functions are exported.
    room.entry = .disabled;
    room.rdynamic = true;
    // By default 1 MiB of each room's memory.
    room.stack_size = 16384;
    b.installArtifact(room);
}
