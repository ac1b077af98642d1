// The ABI 0.2 of Stateroom for rooms in AssemblyScript: the host's functions and the room's
// allocator. A room adds the functions `initialize`, `connect`, `disconnect`,
// `message`, `binary` and `timer`, and exports what is exported here once more: see echo.ts.

// Recipients: everybody (0), client n (n), or everybody but client n (-n).
export const EVERYBODY: i32 = 0;

/** Sends a text. The bytes have to be UTF-8. The host copies them before it returns. */
// @ts-ignore: decorator
@external("env", "send_message")
export declare function send_message(recipient: i32, ptr: usize, len: u32): void;

/** Sends a binary message. The host copies the bytes before it returns. */
// @ts-ignore: decorator
@external("env", "send_binary")
export declare function send_binary(recipient: i32, ptr: usize, len: u32): void;

/** Sends a string, as UTF-8. */
export function send_text(recipient: i32, text: string): void {
  const utf8 = String.UTF8.encode(text);
  send_message(recipient, changetype<usize>(utf8), utf8.byteLength);
}

/** The string that a client sent. */
export function read_text(ptr: usize, len: u32): string {
  return String.UTF8.decodeUnsafe(ptr, len);
}

/** Prints a line to the host's log. The module then imports a function of WASI. */
export function print(text: string): void {
  const utf8 = String.UTF8.encode(text + "\n");
  // The address and the length, and where the host writes how much of it was printed.
  const iovec = memory.data(12, 4);
  store<usize>(iovec, changetype<usize>(utf8));
  store<u32>(iovec, utf8.byteLength, 4);
  fd_write(STDERR, iovec, 1, iovec + 8);
}

/**
 * Prints why the room ends, if asconfig.json says `"use": ["abort=assembly/stateroom/abort"]`. With
 * `"abort="` nothing is printed, and nothing imported.
 */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  print(`${message ? message : "abort"} (${file ? file : "?"}:${line}:${column})`);
  unreachable();
}

const STDERR: u32 = 2;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, iovecs: usize, count: u32, written: usize): u32;

/** Requests one call of `timer` after this many milliseconds; 0 cancels it. */
// @ts-ignore: decorator
@external("env", "set_timer")
export declare function set_timer(ms: u32): void;

// The ABI's version. The host reads the numbers at the addresses in the two globals.
export const JAMSOCKET_API_VERSION: usize = memory.data<i32>([1]);
export const JAMSOCKET_API_PROTOCOL: usize = memory.data<i32>([0]);

// Maximum length of a message. The runtime's allocator traps when the host allows no more memory,
// where the ABI requires null.
const MAX_MESSAGE_BYTES: u32 = 1 << 20;

export function jam_malloc(size: u32): usize {
  return size == 0 || size > MAX_MESSAGE_BYTES ? 0 : heap.alloc(size);
}

export function jam_free(ptr: usize, size: u32): void {
  if (ptr != 0) heap.free(ptr);
}

// Says that the host may keep the block of a message for the next one, which saves it two calls: a
// block of `heap.alloc` is not collected, and stays until it is freed. It is never called. Leave it
// out if `jam_malloc` returns an object.
export function stateroom_keep_payload_buffer(): void {}
