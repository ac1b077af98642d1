// The client against a server in the test, whose connections are lost at random: `node --test`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ResumingSocket, SUBPROTOCOL } from "./stateroom-resume.js";

/** Numbers from a seed, below 1. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

const isText = (frame) => typeof frame === "string";
const payloadOf = (frame) => (isText(frame) ? frame.slice(1) : Buffer.from(frame.slice(1)).toString());

/** A server that echoes messages, over connections that it may lose. */
class Server {
  sessions = new Map();
  connections = 0;
  urls = [];
  next = random(1);
  /** How likely it is that a frame is the last of its connection. */
  losses = 0;
  protocol = SUBPROTOCOL;
  heard = [];
  hellos = [];
  acks = 0;
  goodbyes = 0;
  /** Whether the reply to a hello is this instead. */
  reply = null;
  current = null;

  socketClass() {
    const server = this;
    return class {
      binaryType = "blob";
      constructor(url, protocols) {
        server.urls.push(url);
        assert.deepEqual(protocols, [SUBPROTOCOL]);
        this.isOpen = true;
        server.connections += 1;
        server.current = this;
        setTimeout(() => {
          if (!this.isOpen) return;
          this.protocol = server.protocol;
          this.onopen();
        });
      }
      send(frame) {
        if (!this.isOpen) return;
        if (server.next() < server.losses) this.lose();
        else if (server.next() < server.losses) setTimeout(() => this.lose());
        const data = isText(frame) ? frame : frame.slice().buffer;
        setTimeout(() => this.isOpen && server.receive(this, data));
      }
      /** To the client. */
      deliver(frame) {
        const data = isText(frame) ? frame : frame.slice(0);
        setTimeout(() => {
          if (!this.isOpen) return;
          if (server.next() < server.losses) this.lose();
          else this.onmessage({ data });
        });
      }
      lose(code = 1006, reason = "") {
        if (!this.isOpen) return;
        this.isOpen = false;
        setTimeout(() => this.onclose({ code, reason }));
      }
      close(code = 1005) {
        this.lose(code);
      }
    };
  }

  receive(socket, frame) {
    if (isText(frame) && frame[0] === "h") {
      this.hellos.push(frame);
      if (this.reply !== null) return socket.deliver(this.reply);
      const [count, secret] = frame.slice(1).split(" ");
      let session = this.sessions.get(secret);
      if (session === undefined) {
        session = { secret: `secret-${this.sessions.size}`, received: 0, sent: 0, kept: [] };
        this.sessions.set(session.secret, session);
        socket.deliver(`n${session.secret}`);
      } else {
        this.acknowledge(session, Number(count));
        socket.deliver(`r${session.received}`);
        for (const kept of session.kept) socket.deliver(kept);
      }
      socket.session = session;
      return;
    }
    const { session } = socket;
    if (isText(frame) && frame[0] === "a") {
      this.acks += 1;
      this.acknowledge(session, Number(frame.slice(1)));
    } else if (frame === "g") {
      this.goodbyes += 1;
    } else {
      assert.equal(isText(frame) ? frame[0] : String.fromCharCode(new Uint8Array(frame)[0]), "m");
      this.heard.push(payloadOf(frame));
      session.received += 1;
      session.kept.push(frame);
      socket.deliver(frame);
      if (session.received % 7 === 0) socket.deliver(`a${session.received}`);
    }
  }

  acknowledge(session, count) {
    assert.ok(count >= session.sent && count - session.sent <= session.kept.length);
    session.kept.splice(0, count - session.sent);
    session.sent = count;
  }
}

const URL_OF_ROOM = "ws://test/ws/room";

function connect(server, options = {}) {
  return new ResumingSocket(URL_OF_ROOM, {
    WebSocket: server.socketClass(),
    minDelay: 1,
    maxDelay: 4,
    ...options,
  });
}

/** Waits until a condition holds. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

test("nothing is lost or doubled when connections are lost", async () => {
  let acks = 0;
  for (let seed = 1; seed <= 12; seed += 1) {
    const server = new Server();
    server.next = random(seed);
    server.losses = 0.03;
    const socket = connect(server, { maxMessages: 30 });
    let opened = 0;
    let lost = 0;
    const heard = [];
    socket.onopen = () => (opened += 1);
    socket.onlost = () => (lost += 1);
    socket.onmessage = ({ data }) => heard.push(isText(data) ? data : Buffer.from(data).toString());
    const said = [];
    const next = random(seed + 1000);
    while (said.length < 300) {
      const text = `message ${said.length}`;
      const data = next() < 0.3 ? new TextEncoder().encode(text) : text;
      if (socket.send(data)) said.push(text);
      else await until(() => socket.unacknowledged < 30);
      if (next() < 0.3) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await until(() => heard.length >= said.length);
    assert.deepEqual(heard, said);
    assert.deepEqual(server.heard, said);
    assert.ok(server.connections > 3, `${server.connections} connections`);
    acks += server.acks;
    assert.deepEqual([opened, lost, server.sessions.size], [1, 0, 1]);
    socket.close();
  }
  assert.ok(acks > 0);
});

test("a session that the server has forgotten is lost, and what was queued for it", async () => {
  const server = new Server();
  const socket = connect(server);
  await until(() => socket.status === "open");
  let lost = 0;
  const statuses = [];
  socket.onlost = () => {
    lost += 1;
    assert.equal(socket.status, "connecting", "it can be closed before anything is sent");
  };
  socket.onstatus = (status) => statuses.push(status);
  server.sessions.clear();
  server.sessions.set("another", {});
  server.current.lose();
  await until(() => socket.status === "waiting");
  socket.send("not heard by anybody");
  await until(() => lost === 1);
  assert.equal(socket.unacknowledged, 0);
  socket.send("heard");
  await until(() => server.heard.length > 0);
  assert.deepEqual(server.heard, ["heard"]);
  assert.deepEqual(statuses, ["waiting", "connecting", "open"]);
  socket.close();
});

test("it says goodbye, and does not come back", async () => {
  const server = new Server();
  const socket = connect(server);
  const ends = [];
  socket.onclose = (end) => ends.push(end);
  await until(() => socket.status === "open");
  socket.close();
  socket.close();
  await until(() => server.goodbyes === 1 || !server.current.isOpen);
  assert.deepEqual(ends, [{ code: 1000, reason: "" }]);
  assert.equal(socket.send("too late"), false);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(server.connections, 1);
});

test("some ends are final, and others are not", async () => {
  for (const code of [1000, 1002, 1003, 1007, 1008, 1009]) {
    const server = new Server();
    const socket = connect(server);
    await until(() => socket.status === "open");
    server.current.lose(code, "why");
    await new Promise((resolve) => (socket.onclose = resolve)).then((end) =>
      assert.deepEqual(end, { code, reason: "why" }),
    );
    assert.equal(server.connections, 1);
  }
  for (const code of [1001, 1005, 1006, 1011, 1012, 1013]) {
    const server = new Server();
    const socket = connect(server);
    await until(() => socket.status === "open");
    server.current.lose(code, "why");
    await until(() => server.connections === 2 && socket.status === "open");
    assert.equal(server.hellos[1], "h0 secret-0");
    socket.close();
  }
});

test("a room that has moved is looked for where it is", async () => {
  const first = "ws://test/ws/room";
  for (const [reason, url] of [
    ["moved to ws://other/ws/room", "ws://other/ws/room"],
    ["moved to wss://other:1/ws/room?token=x", "wss://other:1/ws/room?token=x"],
    ["the room has moved to another server", first],
    ["moved to http://other/ws/room", first],
    ["moved to ws://", first],
    ["moved to wss://other/ and more", first],
  ]) {
    const server = new Server();
    const socket = connect(server);
    await until(() => socket.status === "open");
    server.current.lose(1012, reason);
    await until(() => server.connections === 2 && socket.status === "open");
    assert.deepEqual(server.urls, [first, url], reason);
    assert.equal(server.hellos[1], "h0 secret-0");
    // Not away from what is encrypted.
    server.current.lose(1012, "moved to ws://third/ws/room");
    await until(() => server.connections === 3 && socket.status === "open");
    assert.equal(server.urls[2], url.startsWith("wss:") ? url : "ws://third/ws/room");
    socket.close();
  }
});

test("a server that violates the protocol is given up", async () => {
  for (const reply of ["", "n", "x", "m", "a0", "g", "h", "r0", new Uint8Array([1]).buffer]) {
    const server = new Server();
    server.reply = reply;
    const socket = connect(server);
    const end = await new Promise((resolve) => (socket.onclose = resolve));
    assert.equal(end.code, 1002, String(reply));
  }
  const other = new Server();
  other.protocol = "";
  const end = await new Promise((resolve) => (connect(other).onclose = resolve));
  assert.match(end.reason, /does not speak/);
  for (const frame of ["a1", "a-1", "a01", "ax", "nagain", "r0", new Uint8Array([97]).buffer]) {
    const server = new Server();
    const socket = connect(server);
    await until(() => socket.status === "open");
    server.current.deliver(frame);
    const { code } = await new Promise((resolve) => (socket.onclose = resolve));
    assert.equal(code, 1002, String(frame));
  }
});

test("what is queued is bounded, but one message is taken in any case", async () => {
  const server = new Server();
  const socket = connect(server, { maxMessages: 2, maxBytes: 10 });
  assert.equal(socket.send("longer than the limit"), true);
  assert.equal(socket.send("x"), false);
  await until(() => server.heard.length === 1);
  socket.close();
});
