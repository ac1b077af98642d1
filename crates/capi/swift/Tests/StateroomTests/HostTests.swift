import Foundation
import XCTest

@testable import Stateroom

final class HostTests: XCTestCase, HostDelegate {
    private var sent: [String] = []

    /// A module of the repository.
    private func counter() throws -> Data {
        let rooms = URL(fileURLWithPath: #filePath + "/../../../../../../examples/rooms/wasm")
        return try Data(contentsOf: rooms.standardized.appendingPathComponent("counter-c.wasm"))
    }

    func testCounter() throws {
        let wasm = try counter()
        let host = try Host(delegate: self, seed: 1)
        let lobby = try host.open("lobby", Module(wasm), now: 0)
        try host.connect(lobby, client: 1)
        try host.text(lobby, client: 1, "+41")
        XCTAssertNil(try host.poll(now: 0))
        XCTAssertEqual(sent, ["0", "41"])
        XCTAssertThrowsError(try host.text(lobby, client: 2, "+"))
        XCTAssertThrowsError(try Module(Data([1, 2, 3])))
    }

    func testSavedRoomGoesOn() throws {
        let module = try Module(counter(), snapshots: true)
        let host = try Host(delegate: self, seed: 1)
        let lobby = try host.open("lobby", module, now: 0)
        try host.connect(lobby, client: 1)
        try host.text(lobby, client: 1, "+41")
        XCTAssertNil(try host.poll(now: 0))
        let snapshot = try host.save(lobby, now: 0)
        XCTAssertThrowsError(try host.load(snapshot, module, now: 0))
        try host.discard(lobby)
        let again = try host.load(snapshot, module, now: 0)
        try host.text(again, client: 1, "+1")
        XCTAssertNil(try host.poll(now: 0))
        XCTAssertEqual(sent, ["0", "41", "42"])
        try host.hibernate(again, now: 0)
        XCTAssertThrowsError(try host.load(Data([1, 2, 3]), module, now: 0))
    }

    func send(_ message: Message) -> SendResult {
        sent.append(message.text)
        return .sent
    }
}
