import CStateroom
import Foundation

/// The key of a room.
public typealias RoomKey = UInt64

/// What a host tells the program, on the thread that polls it. Do not call the host from here.
public protocol HostDelegate: AnyObject {
    /// Sends a message, which is valid during the call.
    func send(_ message: Message) -> SendResult
    /// A room has ended.
    func closed(_ room: ClosedRoom)
    /// A line for the log: what guests print, faults that rooms survive.
    func log(_ line: String)
}

extension HostDelegate {
    public func closed(_ room: ClosedRoom) {}
    public func log(_ line: String) {}
}

/// The numbers of stateroom.h.
public enum SendResult: Int32 {
    case sent = 0
    case wouldBlock = 1
    case failed = 2
}

/// A message that a room sends. Valid during the call.
public struct Message {
    let raw: UnsafePointer<stateroom_message>

    public var room: RoomKey { raw.pointee.room }
    public var isText: Bool { raw.pointee.is_text != 0 }
    public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: raw.pointee.data, count: raw.pointee.length)
    }
    public var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Whether it is for a client of the room that is connected.
    public func isFor(_ client: UInt32) -> Bool { stateroom_message_is_for(raw, client) != 0 }
}

/// A room that has ended.
public struct ClosedRoom {
    public let room: RoomKey
    public let id: String
    /// Nil if it did not fail.
    public let fault: String?
}

/// Runs rooms. Use it on one thread or queue at a time.
public final class Host {
    private let handle: OpaquePointer
    private let callbacks: Callbacks

    /// The delegate is not kept alive.
    public init(delegate: HostDelegate, seed: UInt64) throws {
        let callbacks = Callbacks(delegate)
        var options = stateroom_host_options()
        options.size = MemoryLayout<stateroom_host_options>.stride
        options.user = Unmanaged.passUnretained(callbacks).toOpaque()
        options.send = { user, message in Callbacks.from(user).send(message) }
        options.closed = { user, room in Callbacks.from(user).closed(room) }
        options.log = { user, line in Callbacks.from(user).log(line) }
        options.seed = seed
        var made: OpaquePointer?
        try check { stateroom_host_new(&options, &made, $0) }
        self.callbacks = callbacks
        handle = made!
    }

    deinit {
        var freed: OpaquePointer? = handle
        stateroom_host_free(&freed, nil)
    }

    /// Runs rooms until they have used the fuel, or until the deadline, on the clock of `now`.
    /// Returns when to poll next: not after `now` if work is left, nil if there is none. Times are
    /// nanoseconds from any origin.
    public func poll(now: UInt64, fuel: UInt64 = .max, deadline: UInt64 = .max) throws -> UInt64? {
        var pollAt: UInt64 = 0
        try check { stateroom_host_poll(handle, now, fuel, deadline, &pollAt, $0) }
        return pollAt == .max ? nil : pollAt
    }

    public func open(_ id: String, _ module: Module, now: UInt64) throws -> RoomKey {
        var room: RoomKey = 0
        var id = id
        try id.withUTF8 { id in
            try id.withMemoryRebound(to: CChar.self) { id in
                try check {
                    stateroom_room_open(
                        handle, now, id.baseAddress, id.count, module.handle, nil, &room, $0)
                }
            }
        }
        return room
    }

    /// Opens a room from a snapshot, under the id that it has there. With `otherLimits` it may go on under
    /// those of the module where they are not those that it ran under.
    public func load(_ snapshot: Data, _ module: Module, now: UInt64, otherLimits: Bool = false)
        throws -> RoomKey
    {
        var room: RoomKey = 0
        var options = stateroom_snapshot_options()
        options.size = MemoryLayout<stateroom_snapshot_options>.stride
        options.other_limits = otherLimits ? 1 : 0
        try snapshot.withUnsafeBytes { bytes in
            try check {
                stateroom_room_load(
                    handle, now, module.handle, bytes.baseAddress, bytes.count, &options, &room, $0)
            }
        }
        return room
    }

    /// The room as bytes, from which `load` makes one that goes on exactly here. The module must have
    /// been loaded with `snapshots`. The delegate may be called: an event is finished first.
    public func save(_ room: RoomKey, now: UInt64) throws -> Data {
        var snapshot = Data()
        while true {
            var length = 0
            do {
                try snapshot.withUnsafeMutableBytes { bytes in
                    try check {
                        stateroom_room_save(
                            handle, now, room, bytes.baseAddress, bytes.count, &length, $0)
                    }
                }
                return snapshot.prefix(length)
            } catch let error as StateroomError
                where error.status == Int32(STATEROOM_STATUS_TOO_SMALL.rawValue)
            {
                snapshot = Data(count: length)
            }
        }
    }

    /// Replaces the guest of an idle room by its state, until an event or the timer wakes it.
    public func hibernate(_ room: RoomKey, now: UInt64) throws {
        try check { stateroom_room_hibernate(handle, now, room, $0) }
    }

    /// Removes a room at once, without a call of `closed`: it goes on elsewhere.
    public func discard(_ room: RoomKey) throws {
        try check { stateroom_room_discard(handle, room, $0) }
    }

    public func close(_ room: RoomKey) throws {
        try check { stateroom_room_close(handle, room, $0) }
    }

    public func connect(_ room: RoomKey, client: UInt32) throws {
        try check { stateroom_room_connect(handle, room, client, $0) }
    }

    public func disconnect(_ room: RoomKey, client: UInt32) throws {
        try check { stateroom_room_disconnect(handle, room, client, $0) }
    }

    public func text(_ room: RoomKey, client: UInt32, _ text: String) throws {
        var text = text
        try text.withUTF8 { text in
            try text.withMemoryRebound(to: CChar.self) { text in
                try check {
                    stateroom_room_text(handle, room, client, text.baseAddress, text.count, $0)
                }
            }
        }
    }

    public func bytes(_ room: RoomKey, client: UInt32, _ bytes: Data) throws {
        try bytes.withUnsafeBytes { bytes in
            try check {
                stateroom_room_bytes(handle, room, client, bytes.baseAddress, bytes.count, $0)
            }
        }
    }

    public func stats(_ room: RoomKey) throws -> stateroom_room_stats {
        var stats = stateroom_room_stats()
        stats.size = MemoryLayout<stateroom_room_stats>.stride
        try check { stateroom_room_get_stats(handle, room, &stats, $0) }
        return stats
    }
}

/// What the library's callbacks are given: apart from the host, since one is called while the host
/// is freed.
private final class Callbacks {
    private weak var delegate: HostDelegate?

    init(_ delegate: HostDelegate) { self.delegate = delegate }

    static func from(_ user: UnsafeMutableRawPointer?) -> Callbacks {
        Unmanaged<Callbacks>.fromOpaque(user!).takeUnretainedValue()
    }

    func send(_ message: UnsafePointer<stateroom_message>?) -> stateroom_send_result {
        guard let delegate, let message else { return SendResult.failed.rawValue }
        return delegate.send(Message(raw: message)).rawValue
    }

    func closed(_ room: UnsafePointer<stateroom_closed_room>?) {
        guard let room = room?.pointee else { return }
        delegate?.closed(
            ClosedRoom(
                room: room.room,
                id: string(room.id, room.id_length),
                fault: room.fault_text.map { string($0, room.fault_text_length) }))
    }

    func log(_ line: UnsafePointer<stateroom_log_line>?) {
        guard let line = line?.pointee else { return }
        delegate?.log(string(line.text, line.text_length))
    }
}
