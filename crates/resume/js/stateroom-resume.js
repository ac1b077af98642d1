// A client of Stateroom rooms that comes back when its connection is lost: each message arrives
// exactly once, both ways. The protocol is stateroom.resume.1; see docs/resume.md of
// stateroom-wasmi-host. An ES module without dependencies, for browsers, Node 22 and later, and Deno.

/** The name of the subprotocol. */
export const SUBPROTOCOL = "stateroom.resume.1";

/** Received messages after which one acknowledges, and milliseconds after which one does so anyway. */
const ACK_INTERVAL = 16;
const ACK_DELAY = 1000;

/** The first byte of a binary frame with a message. */
const MESSAGE = 0x6d;

/** Close codes after which it is of no use to try again. */
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);

/** The close code of a room that is elsewhere, with the URL in the reason. */
const MOVED = 1012;

/**
 * A connection to a room that outlives its WebSockets. Like a WebSocket it has `send`, `close`,
 * `onopen`, `onmessage` and `onclose`; beyond that, `status` and `onstatus`, and `onlost`.
 */
export class ResumingSocket {
  /** Called once, when the first session has begun. */
  onopen = null;
  /** Called with `{ data }` for each message of the room: a string or an `ArrayBuffer`. */
  onmessage = null;
  /** Called with `{ code, reason }` when it has ended for good. */
  onclose = null;
  /** Called with the new `status`. */
  onstatus = null;
  /**
   * Called when the session was lost and another one begins: the room has seen the client leave and
   * come again, and what was not acknowledged may or may not have arrived.
   */
  onlost = null;

  #url;
  #options;
  #status = "connecting";
  #socket = null;
  #secret = null;
  #hasOpened = false;
  /** Frames that were not acknowledged, oldest first, and their bytes. */
  #unacknowledged = [];
  #bytes = 0;
  /** How many messages were sent and acknowledged, received, and acknowledged to the server. */
  #sent = 0;
  #received = 0;
  #acknowledged = 0;
  #attempts = 0;
  #retry = null;
  #ack = null;

  /**
   * @param {string | URL} url The room's WebSocket.
   * @param {object} [options]
   * @param {number} [options.maxMessages] Messages that are kept until they are acknowledged: 1000.
   * @param {number} [options.maxBytes] Bytes of those: 1 MiB.
   * @param {number} [options.minDelay] Milliseconds before the first attempt to connect again: 250.
   * @param {number} [options.maxDelay] The longest: 15000.
   * @param {typeof WebSocket} [options.WebSocket] In place of the global one.
   */
  constructor(url, options = {}) {
    this.#url = String(url);
    this.#options = {
      maxMessages: 1000,
      maxBytes: 1 << 20,
      minDelay: 250,
      maxDelay: 15000,
      WebSocket: globalThis.WebSocket,
      ...options,
    };
    this.#connect();
  }

  /** `"connecting"`, `"open"`, `"waiting"` (to connect again) or `"closed"`. */
  get status() {
    return this.#status;
  }

  /** How many messages were not acknowledged yet. */
  get unacknowledged() {
    return this.#unacknowledged.length;
  }

  /**
   * Sends a message, now or when the connection is there again.
   *
   * @param {string | ArrayBuffer | ArrayBufferView} data
   * @returns {boolean} False if too much is not acknowledged, or it is closed: then nothing is sent.
   */
  send(data) {
    if (this.#status === "closed") return false;
    const frame = frameOf(data);
    const bytes = sizeOf(frame);
    const { maxMessages, maxBytes } = this.#options;
    const fits = this.#unacknowledged.length < maxMessages && this.#bytes + bytes <= maxBytes;
    if (!fits && this.#unacknowledged.length > 0) return false;
    this.#unacknowledged.push(frame);
    this.#bytes += bytes;
    if (this.#status === "open") this.#socket.send(frame);
    return true;
  }

  /** Leaves the room. */
  close() {
    if (this.#status === "closed") return;
    if (this.#status === "open") {
      this.#flushAck();
      this.#socket.send("g");
    }
    const socket = this.#socket;
    this.#end(1000, "");
    socket?.close(1000);
  }

  #connect() {
    this.#retry = null;
    this.#setStatus("connecting");
    if (this.#status !== "connecting") return;
    let socket;
    try {
      socket = new this.#options.WebSocket(this.#url, [SUBPROTOCOL]);
    } catch (error) {
      this.#end(1002, String(error.message ?? error));
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      if (this.#socket !== socket) return;
      if (socket.protocol !== SUBPROTOCOL) {
        this.#giveUp(socket, 1002, `the server does not speak ${SUBPROTOCOL}`);
        return;
      }
      this.#acknowledged = this.#received;
      socket.send(this.#secret === null ? "h" : `h${this.#received} ${this.#secret}`);
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      if (!this.#receive(data)) this.#giveUp(socket, 1002, "the server violates the protocol");
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (FINAL.has(code)) this.#end(code, reason);
      else {
        if (code === MOVED) this.#follow(reason);
        this.#wait();
      }
    };
  }

  /** The room is at another server, if the reason says so: from now on, it is looked for there. */
  #follow(reason) {
    const text = /^moved to (wss?:\/\/\S+)$/.exec(reason)?.[1];
    if (text === undefined) return;
    try {
      const url = new URL(text);
      const present = new URL(this.#url);
      // A secret that was encrypted stays so.
      if (present.protocol === "wss:" && url.protocol !== "wss:") return;
      url.search ||= present.search;
      this.#url = url.href;
      this.#attempts = 0;
    } catch {
      // It is no URL.
    }
  }

  /** Handles a frame; returns false if it is none of the protocol. */
  #receive(data) {
    if (typeof data !== "string") {
      const bytes = new Uint8Array(data);
      if (this.#status !== "open" || bytes[0] !== MESSAGE) return false;
      this.#deliver(data.slice(1));
      return true;
    }
    const rest = data.slice(1);
    switch (data[0]) {
      case "m":
        if (this.#status !== "open") return false;
        this.#deliver(rest);
        return true;
      case "a":
        return this.#status === "open" && this.#forget(rest);
      case "n":
        return this.#status === "connecting" && this.#begin(rest);
      case "r":
        if (this.#status !== "connecting" || this.#secret === null || !this.#forget(rest)) return false;
        this.#goOn();
        return true;
      default:
        return false;
    }
  }

  #begin(secret) {
    if (secret === "") return false;
    const wasLost = this.#secret !== null;
    this.#secret = secret;
    this.#sent = this.#received = this.#acknowledged = 0;
    if (wasLost) {
      this.#unacknowledged = [];
      this.#bytes = 0;
    }
    if (wasLost) this.onlost?.();
    if (this.#status === "connecting") this.#goOn();
    return true;
  }

  /** The session has begun, or goes on: what the server may not have received is sent again. */
  #goOn() {
    this.#attempts = 0;
    for (const frame of this.#unacknowledged) this.#socket.send(frame);
    this.#setStatus("open");
    if (!this.#hasOpened) {
      this.#hasOpened = true;
      this.onopen?.();
    }
  }

  #deliver(data) {
    this.#received += 1;
    if (this.#received - this.#acknowledged >= ACK_INTERVAL) this.#flushAck();
    else this.#ack ??= setTimeout(() => this.#flushAck(), ACK_DELAY);
    this.onmessage?.({ data });
  }

  #flushAck() {
    clearTimeout(this.#ack);
    this.#ack = null;
    if (this.#status !== "open" || this.#received === this.#acknowledged) return;
    this.#acknowledged = this.#received;
    this.#socket.send(`a${this.#received}`);
  }

  /** The server has so many messages; returns false if that cannot be. */
  #forget(text) {
    const count = Number(text);
    const isCount = /^(0|[1-9][0-9]*)$/.test(text) && Number.isSafeInteger(count);
    const news = count - this.#sent;
    if (!isCount || news < 0 || news > this.#unacknowledged.length) return false;
    for (const frame of this.#unacknowledged.splice(0, news)) this.#bytes -= sizeOf(frame);
    this.#sent = count;
    return true;
  }

  /** Connects again after a while, longer each time, and not all clients at once. */
  #wait() {
    clearTimeout(this.#ack);
    this.#ack = null;
    const { minDelay, maxDelay } = this.#options;
    const delay = Math.min(maxDelay, minDelay * 2 ** this.#attempts) * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.#retry = setTimeout(() => this.#connect(), delay);
    this.#setStatus("waiting");
  }

  #giveUp(socket, code, reason) {
    this.#end(code, reason);
    socket.close();
  }

  #end(code, reason) {
    clearTimeout(this.#retry);
    clearTimeout(this.#ack);
    this.#retry = this.#ack = null;
    this.#socket = null;
    if (this.#status === "closed") return;
    this.#setStatus("closed");
    this.onclose?.({ code, reason });
  }

  #setStatus(status) {
    if (this.#status === status) return;
    this.#status = status;
    this.onstatus?.(status);
  }
}

function frameOf(data) {
  if (typeof data === "string") return `m${data}`;
  const bytes = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  const frame = new Uint8Array(1 + bytes.length);
  frame[0] = MESSAGE;
  frame.set(bytes, 1);
  return frame;
}

/** Bytes of a frame; of a text, about. */
function sizeOf(frame) {
  return typeof frame === "string" ? frame.length : frame.byteLength;
}
