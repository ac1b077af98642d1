// Talks to a board's rooms through `stateroom-wasmi attach`: talk.mjs ws://HOST:PORT/ws
// (Node 20 needs --experimental-websocket.)

import assert from "node:assert/strict";

const base = process.argv[2];
const SOON_MS = 60_000;

class Client {
  constructor(room) {
    this.heard = [];
    this.waiting = [];
    this.socket = new WebSocket(`${base}/${room}`);
    this.socket.onmessage = ({ data }) => this.#put(data);
    this.closed = new Promise((resolve) => {
      this.socket.onclose = ({ code, reason }) => resolve({ code, reason });
    });
  }

  static async join(room) {
    // The bridge learns of a room when the board has answered it, and again when the room is new.
    await soon(listed(room), `room ${room}`);
    const client = new Client(room);
    const opened = new Promise((resolve) => (client.socket.onopen = resolve));
    await soon(opened, `connection to ${room}`);
    return client;
  }

  say(text) {
    this.socket.send(text);
  }

  async expect(text) {
    const heard = this.heard.length > 0 ? this.heard.shift() : await this.#next();
    assert.equal(heard, text);
  }

  #put(data) {
    const waiting = this.waiting.shift();
    if (waiting) waiting(data);
    else this.heard.push(data);
  }

  #next() {
    return soon(new Promise((resolve) => this.waiting.push(resolve)), "a message");
  }
}

async function listed(room) {
  for (;;) {
    const response = await fetch(new URL("/rooms", base.replace("ws:", "http:")));
    const { rooms } = await response.json();
    if (rooms.some(({ id }) => id === room)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function soon(promise, what) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what}`)), SOON_MS).unref());
  return Promise.race([promise, late]);
}

const watcher = await Client.join("clock");
const a = await Client.join("chat");
await a.expect("Welcome, guest1. Commands: /nick NAME, /who.");
const b = await Client.join("chat");
await b.expect("Welcome, guest2. Commands: /nick NAME, /who.");
await a.expect("guest2 joined.");
a.say("/nick ada");
for (const client of [a, b]) await client.expect("guest1 is now ada.");
b.say("grüße");
for (const client of [a, b]) await client.expect("guest2: grüße");

for (const evil of ["panic", "loop", "recurse", "wild", "flood"]) {
  const c = await Client.join("hostile");
  c.say("I am nice");
  await c.expect("I am nice");
  c.say(evil);
  const { code, reason } = await soon(c.closed, "end of the hostile room");
  assert.equal(code, 1011, reason);
  console.log(`${evil}: ${reason}`);
  // The others have not noticed.
  a.say(evil);
  for (const client of [a, b]) await client.expect(`ada: ${evil}`);
}

await watcher.expect("tick 1");
await watcher.expect("tick 2");
a.say("x".repeat(400));
await b.expect(`ada: ${"x".repeat(400)}`);
b.say("/who");
await b.expect("Here: ada, guest2.");
a.socket.close();
await b.expect("ada left.");
console.log("the board's rooms have answered as they should");
process.exit(0);
