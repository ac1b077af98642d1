// Clock: counts seconds while clients are connected.
//
//   what happens                     reply                             to
//   the first client connects        the clock starts at zero
//   a second has passed              tick 1, then tick 2, and so on    everybody
//   the last client disconnects      the clock stops
//   a text or a binary message       nothing
//
// Here AssemblyScript's own strings and sets are used. The minimal runtime never collects garbage
// by itself, so each function that makes some calls __collect before it returns: then nothing of
// ours is on the stack, and that is when collecting is safe.

import { EVERYBODY, send_message, set_timer } from "./stateroom";

export {
  jam_malloc,
  jam_free,
  stateroom_keep_payload_buffer,
  JAMSOCKET_API_VERSION,
  JAMSOCKET_API_PROTOCOL,
} from "./stateroom";

const SECOND_MS: u32 = 1000;
const NEVER_MS: u32 = 0;

const watching = new Set<i32>();
let ticks: u64 = 0;

export function connect(client: i32): void {
  const first = watching.size == 0;
  watching.add(client);
  if (first) {
    ticks = 0;
    set_timer(SECOND_MS);
  }
  __collect();
}

export function disconnect(client: i32): void {
  // Unknown clients are ignored, so they cannot cancel the timer.
  if (watching.delete(client) && watching.size == 0) set_timer(NEVER_MS);
  __collect();
}

export function timer(): void {
  // Some hosts fire `set_timer(0)` at once instead of cancelling the timer, so one more tick may
  // follow the last disconnect.
  if (watching.size == 0) return;
  ticks++;
  broadcast("tick " + ticks.toString());
  // A timer fires once, so it is set again for the next tick.
  set_timer(SECOND_MS);
  __collect();
}

// Strings are UTF-16 here, and the host wants UTF-8.
function broadcast(text: string): void {
  const utf8 = String.UTF8.encode(text);
  send_message(EVERYBODY, changetype<usize>(utf8), utf8.byteLength);
}

export function initialize(room_ptr: usize, room_len: u32): void {}

export function message(client: i32, ptr: usize, len: u32): void {}

export function binary(client: i32, ptr: usize, len: u32): void {}
