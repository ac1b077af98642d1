// A counter: one number that everybody in the room shares.

import { EVERYBODY, read_text, send_text } from "./stateroom";

// What the host needs besides the functions below.
export {
  jam_malloc,
  jam_free,
  stateroom_keep_payload_buffer,
  JAMSOCKET_API_VERSION,
  JAMSOCKET_API_PROTOCOL,
} from "./stateroom";

// The state of the room.
let count: i64 = 0;

export function connect(client: i32): void {
  send_text(client, count.toString());
}

export function message(client: i32, ptr: usize, len: u32): void {
  const text = read_text(ptr, len);
  // Clients can send anything.
  if (text == "+") count++;
  else if (text == "-") count--;
  else return send_text(client, "Say + or -.");
  send_text(EVERYBODY, count.toString());
}

// What else happens in a room.
export function initialize(room_ptr: usize, room_len: u32): void {}

export function disconnect(client: i32): void {}

export function binary(client: i32, ptr: usize, len: u32): void {}

export function timer(): void {}
