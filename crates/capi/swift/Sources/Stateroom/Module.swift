import CStateroom
import Foundation

/// A module, compiled and checked; its rooms may outlive it.
public final class Module {
    let handle: OpaquePointer

    /// Set what you must of the limits: `var limits = try Module.defaultLimits()`. With `snapshots` its
    /// rooms can be saved.
    public init(_ wasm: Data, limits: stateroom_limits? = nil, snapshots: Bool = false) throws {
        var limits = try limits ?? Module.defaultLimits()
        var loaded: OpaquePointer?
        try wasm.withUnsafeBytes { bytes in
            try withUnsafePointer(to: &limits) { limits in
                var options = stateroom_load_options()
                options.size = MemoryLayout<stateroom_load_options>.stride
                options.limits = limits
                options.snapshots = snapshots ? 1 : 0
                try check {
                    stateroom_module_load(bytes.baseAddress, bytes.count, &options, &loaded, $0)
                }
            }
        }
        handle = loaded!
    }

    deinit {
        var freed: OpaquePointer? = handle
        stateroom_module_free(&freed, nil)
    }

    /// Those for a phone or a desktop.
    public static func defaultLimits() throws -> stateroom_limits {
        var limits = stateroom_limits()
        limits.size = MemoryLayout<stateroom_limits>.stride
        try check { stateroom_limits_default(&limits, $0) }
        return limits
    }
}
