// Keeps the last lines that it was sent, and replies to each with how many there are and with a
// digest of all of them. Its buffers are objects of the garbage collector that nothing refers to:
// they are there for as long as an event takes, and then anything may take their place.

@external("env", "send_message")
declare function send_message(recipient: i32, ptr: usize, len: u32): void;

export const JAMSOCKET_API_VERSION: usize = memory.data<i32>([1]);
export const JAMSOCKET_API_PROTOCOL: usize = memory.data<i32>([0]);

const LINES = 50;
const lines: Array<string> = [];

export function jam_malloc(size: u32): usize {
  return changetype<usize>(new ArrayBuffer(size));
}

export function jam_free(ptr: usize, size: u32): void {}

export function message(client: i32, ptr: usize, len: u32): void {
  if (lines.length == LINES) lines.shift();
  lines.push(String.UTF8.decodeUnsafe(ptr, len));
  // Garbage, so that the collector has work.
  let all = "";
  let digest: u32 = 0;
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    all = line.substr(0, 10) + all;
    for (let at = 0; at < line.length; at++) digest = digest * 31 + line.charCodeAt(at);
  }
  const reply = lines.length.toString() + " lines, " + digest.toString() + ": " + all;
  const utf8 = String.UTF8.encode(reply);
  send_message(client, changetype<usize>(utf8), utf8.byteLength);
}

export function initialize(ptr: usize, len: u32): void {}

export function connect(client: i32): void {}

export function disconnect(client: i32): void {}

export function binary(client: i32, ptr: usize, len: u32): void {}

export function timer(): void {}
