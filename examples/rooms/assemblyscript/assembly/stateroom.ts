// The ABI 0.2 of Stateroom for rooms in AssemblyScript: what the host does for a room, and the memory
// that a room lends to the host. A room adds the functions `initialize`, `connect`, `disconnect`,
// `message`, `binary` and `timer`, and exports what is exported here once more: see echo.ts.

// Who gets a message: everybody (0), client n (n), or everybody but client n (-n).
export const EVERYBODY: i32 = 0;

/** Sends a text. The bytes have to be UTF-8. The host copies them before it returns. */
// @ts-ignore: decorator
@external("env", "send_message")
export declare function send_message(recipient: i32, ptr: usize, len: u32): void;

/** Sends a binary message. The host copies the bytes before it returns. */
// @ts-ignore: decorator
@external("env", "send_binary")
export declare function send_binary(recipient: i32, ptr: usize, len: u32): void;

/** Asks for one call of `timer` after so many milliseconds; 0 takes the timer away. */
// @ts-ignore: decorator
@external("env", "set_timer")
export declare function set_timer(ms: u32): void;

// Which ABI this is. The host takes the two globals for addresses and reads the numbers there.
export const JAMSOCKET_API_VERSION: usize = memory.data<i32>([1]);
export const JAMSOCKET_API_PROTOCOL: usize = memory.data<i32>([0]);

// A longer message is not worth the memory. The runtime's allocator would end the room with a trap
// when the host allows no more memory, where the ABI wants a null.
const LONGEST: u32 = 1 << 20;

export function jam_malloc(size: u32): usize {
  return size == 0 || size > LONGEST ? 0 : heap.alloc(size);
}

export function jam_free(ptr: usize, size: u32): void {
  if (ptr != 0) heap.free(ptr);
}
