// Echo: everything that a client says is echoed to that client alone.
//
//   from a client                          reply            to
//   a text, also an empty one              the same text    the sender
//   a binary message, also an empty one    the same bytes   the sender
//
// The bytes are sent from where the host wrote them, without a String or an array, so that there is
// nothing to collect.

import { send_message, send_binary } from "./stateroom";

export {
  jam_malloc,
  jam_free,
  stateroom_keep_payload_buffer,
  JAMSOCKET_API_VERSION,
  JAMSOCKET_API_PROTOCOL,
} from "./stateroom";

export function message(client: i32, ptr: usize, len: u32): void {
  send_message(client, ptr, len);
}

export function binary(client: i32, ptr: usize, len: u32): void {
  send_binary(client, ptr, len);
}

export function initialize(room_ptr: usize, room_len: u32): void {}

export function connect(client: i32): void {}

export function disconnect(client: i32): void {}

export function timer(): void {}
