// Moves rooms from board to board and back: move.mjs TOOL CLIENTS OPERATORS CLIENTS OPERATORS, a built
// `stateroom-wasmi` and the URLs of the servers that are attached to two boards. (Node 20 needs --experimental-websocket.)

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const SOON_MS = 60_000;
const tool = process.argv[2];
const [a, b] = [process.argv.slice(3, 5), process.argv.slice(5, 7)].map(([clients, operators]) => ({
  ws: clients.replace("http:", "ws:").replace(/\/$/, ""),
  admin: operators.replace(/\/$/, ""),
}));

async function request(board, method, path, body) {
  const response = await fetch(board.admin + path, { method, body });
  const bytes = Buffer.from(await response.arrayBuffer());
  return { status: response.status, bytes };
}

async function ok(board, method, path, body) {
  const { status, bytes } = await request(board, method, path, body);
  assert.equal(status, 200, `${method} ${path}: ${bytes}`);
  return bytes;
}

async function until(what, is) {
  const end = Date.now() + SOON_MS;
  while (!(await is())) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const rooms = async (board) => JSON.parse(await ok(board, "GET", "/rooms")).rooms.map(({ id }) => id);

/// A client of the clock, which says how often it has ticked.
class Watcher {
  constructor(board) {
    this.ticks = [];
    this.socket = new WebSocket(`${board.ws}/ws/clock`);
    this.socket.onmessage = ({ data }) => this.ticks.push(Number(data.match(/^tick (\d+)$/)[1]));
    this.closed = new Promise((resolve) => {
      this.socket.onclose = ({ code, reason }) => resolve({ code, reason });
    });
  }

  async heard(count) {
    await until("the clock ticks", () => this.ticks.length >= count);
  }

  get last() {
    return this.ticks.at(-1);
  }
}

/// Moves a room by the tool.
const move = (from, to, room) => promisify(execFile)(tool, ["move", from.admin, to.admin, room]);

for (const board of [a, b]) {
  await until("the rooms are known", async () => (await rooms(board)).length === 3);
}
const atA = new Watcher(a);
await atA.heard(3);

// The second board has a clock of its own, which makes place.
await assert.rejects(move(a, b, "clock"), /there is a room of this id/);
await atA.heard(atA.ticks.length + 1);
const held = await fetch(`${b.admin}/rooms/clock/hold`, { method: "POST" });
await ok(b, "POST", `/rooms/clock/moved?hold=${held.headers.get("stateroom-hold")}`);
await until("the clock is gone", async () => !(await rooms(b)).includes("clock"));

await move(a, b, "clock");
const { code, reason } = await atA.closed;
assert.deepEqual([code, reason], [1012, "the room has moved to another server"]);
assert.deepEqual(atA.ticks, atA.ticks.map((_, index) => atA.ticks[0] + index), "it has missed no tick");

const atB = new Watcher(b);
await atB.heard(2);
// It had lost its clients, and so began at zero when one came.
assert.deepEqual(atB.ticks.slice(0, 2), [1, 2]);
assert.ok(!(await rooms(a)).includes("clock"));
await move(b, a, "clock");
await atB.closed;
const again = new Watcher(a);
await again.heard(1);

// One that is held and released misses nothing, and what is due comes late.
const waits = await fetch(`${a.admin}/rooms/clock/hold`, { method: "POST" });
await waits.arrayBuffer();
await ok(a, "POST", `/rooms/clock/resume?hold=${waits.headers.get("stateroom-hold")}`);
await again.heard(4);
assert.deepEqual(again.ticks.slice(0, 4), [1, 2, 3, 4]);

// A room that is saved goes on, and what was damaged on the way is none.
const snapshot = await ok(a, "GET", "/rooms/clock/snapshot");
assert.ok(snapshot.length < 256, `${snapshot.length} bytes`);
await again.heard(again.ticks.length + 1);
snapshot[snapshot.length - 1] ^= 1;
const damaged = await request(b, "PUT", "/rooms/clock", snapshot);
assert.equal(damaged.status, 422, `${damaged.bytes}`);
console.log(`a clock of ${snapshot.length} bytes went from board to board and back; damaged: ${damaged.bytes}`);
process.exit(0);
