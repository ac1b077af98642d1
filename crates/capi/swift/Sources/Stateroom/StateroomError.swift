import CStateroom

/// Why a call did nothing: a `stateroom_status`, and what it means here.
public struct StateroomError: Error, CustomStringConvertible {
    public let status: Int32
    public let description: String
}

/// Calls a function of stateroom.h with a buffer for its message.
func check(_ call: (UnsafeMutablePointer<stateroom_buffer>) -> stateroom_status) throws {
    try withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { text in
        var error = stateroom_buffer(data: text.baseAddress, capacity: text.count, length: 0)
        let status = call(&error)
        guard status == 0 else {
            let message = text.baseAddress.map { String(cString: $0) } ?? ""
            throw StateroomError(status: status, description: message)
        }
    }
}

func string(_ text: UnsafePointer<CChar>?, _ length: Int) -> String {
    String(decoding: UnsafeRawBufferPointer(start: text, count: length), as: UTF8.self)
}
