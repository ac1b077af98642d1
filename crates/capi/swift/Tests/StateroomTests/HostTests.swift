import Foundation
import XCTest

@testable import Stateroom

final class HostTests: XCTestCase, HostDelegate {
    private var sent: [String] = []

    func testCounter() throws {
        // The modules of the repository.
        let rooms = URL(fileURLWithPath: #filePath + "/../../../../../../examples/rooms/wasm")
        let wasm = try Data(contentsOf: rooms.standardized.appendingPathComponent("counter-c.wasm"))
        let host = try Host(delegate: self, seed: 1)
        let lobby = try host.open("lobby", Module(wasm), now: 0)
        try host.connect(lobby, client: 1)
        try host.text(lobby, client: 1, "+41")
        XCTAssertNil(try host.poll(now: 0))
        XCTAssertEqual(sent, ["0", "41"])
        XCTAssertThrowsError(try host.text(lobby, client: 2, "+"))
        XCTAssertThrowsError(try Module(Data([1, 2, 3])))
    }

    func send(_ message: Message) -> SendResult {
        sent.append(message.text)
        return .sent
    }
}
