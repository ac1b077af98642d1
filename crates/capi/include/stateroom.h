// stateroom.h: Stateroom rooms in C.
//
// A room is a small stateful WebAssembly module that serves a group of clients. A host runs
// rooms: the program puts in what clients do, polls, and is called back with what rooms send.
// The library reads no clock, opens no socket and starts no thread.
//
// Names. Functions are named stateroom_OBJECT_VERB, and constants STATEROOM_TYPE_NAME. The ABI
// between hosts and guests also has names that begin with stateroom_ (stateroom_malloc,
// stateroom_free, stateroom_recv, stateroom_send, and STATEROOM_API_VERSION and
// STATEROOM_API_PROTOCOL). None of them is or will be a name of this interface, so both can be
// linked into one program, such as a test.
//
// Errors. A function returns a stateroom_status, 0 if it did what it is for, and writes a
// message to `error` unless that is NULL. A function that fails has changed nothing, but for
// results, which are then 0 or NULL. Panics of the library become PANICKED; without std they
// call stateroom_panic.
//
// Ownership. What a function is passed is used until it returns, and is still the program's.
// Only handles are kept: each has one function that makes it and one that frees it. A freed
// handle must not be used; the functions that free set the program's variable to NULL, which the
// other ones refuse.
//
// Texts are UTF-8 with a length, and need no NUL. Times are nanoseconds.
//
// Structs that begin with `size` may grow at their end. The program sets `size` to the sizeof
// that it was compiled with, and the rest to 0 or to what it wants, so that old programs and new
// libraries fit together. A new program and an old library do, too, unless it sets an option
// that the library does not know, which is INVALID_ARGUMENT.
//
// Threads. A function that takes a host may be called by any thread, by one at a time; a call
// during another one is refused with IN_USE. Each other function says which threads may call it.
// The library has no threads, and three things outside of its handles: the allocator, the route
// of log lines, which is the thread's, and a number for each host, for the keys of its rooms.
// Without std, one task at a time may use the library.

#ifndef STATEROOM_H
#define STATEROOM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ==== Versions ================================================================================

// The version of the interface that this header declares. It changes when a program that was
// compiled with an older header would not work any more; additions do not change it.
#define STATEROOM_INTERFACE_VERSION 1

// A time that never comes.
#define STATEROOM_NEVER UINT64_MAX

// No limit for fuel.
#define STATEROOM_UNLIMITED UINT64_MAX

// The key of a room, by which a host knows it. Keys are never used again, so that one of a room
// that has ended names no other.
typedef uint64_t stateroom_room;

// A key that no room ever has.
#define STATEROOM_NO_ROOM 0

// Returns the interface version of the library. Compare it with STATEROOM_INTERFACE_VERSION
// where the library is loaded at run time.
//
// Any thread, at any time.
uint32_t stateroom_interface_version(void);

// Returns the version of the library, such as "0.1.0": static, and ended by a NUL.
//
// Any thread, at any time.
const char *stateroom_library_version(void);

// ==== Errors ==================================================================================

// What a function returns: 0, or why it did nothing. Later versions may return others.
typedef int32_t stateroom_status;
enum {
    // Done.
    STATEROOM_STATUS_OK = 0,
    // An argument is not allowed: NULL, misaligned, a number that means nothing, a struct whose
    // `size` is not set, an option that this version of the library does not know.
    STATEROOM_STATUS_INVALID_ARGUMENT = 1,
    // A text is not UTF-8.
    STATEROOM_STATUS_NOT_UTF8 = 2,
    // The pointer is no handle of this type, or the key is of a room of another host.
    STATEROOM_STATUS_WRONG_HANDLE = 3,
    // The host is running: the call came from one of its callbacks, or from another thread.
    STATEROOM_STATUS_IN_USE = 4,
    // This build of the library lacks the feature.
    STATEROOM_STATUS_UNSUPPORTED = 5,
    // Memory was allocated already, so the allocator cannot be set any more.
    STATEROOM_STATUS_TOO_LATE = 6,
    // The library failed: a bug of it. The host can only be freed.
    STATEROOM_STATUS_PANICKED = 7,
    // The program's buffer is too small for a result.
    STATEROOM_STATUS_TOO_SMALL = 8,
    // The limits contradict each other.
    STATEROOM_STATUS_INVALID_LIMITS = 16,
    // The bytes are not valid WebAssembly, or use a proposal that is not supported.
    STATEROOM_STATUS_INVALID_MODULE = 17,
    // The module is valid, but not a room. The message lists what is wrong.
    STATEROOM_STATUS_NOT_A_ROOM = 18,
    // The module is longer than a limit, or has more of something than a limit allows.
    STATEROOM_STATUS_MODULE_TOO_LARGE = 19,
    // The module cannot be loaded for snapshots, since it has state that cannot be restored.
    STATEROOM_STATUS_HIDDEN_STATE = 20,
    // The id is longer than `max_room_id_bytes`.
    STATEROOM_STATUS_ID_TOO_LONG = 32,
    // The host has a room of this id.
    STATEROOM_STATUS_ID_TAKEN = 33,
    // The host has as many rooms as `max_rooms` allows.
    STATEROOM_STATUS_TOO_MANY_ROOMS = 34,
    // This needs a module that was loaded with `snapshots`: the fault policy ROLLBACK, saving and
    // loading rooms.
    STATEROOM_STATUS_NOT_LOADED_FOR_SNAPSHOTS = 35,
    // The host has no such room, or not any more.
    STATEROOM_STATUS_UNKNOWN_ROOM = 48,
    // The room is closed.
    STATEROOM_STATUS_CLOSED = 49,
    // The client's id is not from 1 to 2147483647.
    STATEROOM_STATUS_INVALID_CLIENT = 50,
    // The client is connected already.
    STATEROOM_STATUS_ALREADY_CONNECTED = 51,
    // The client is not connected.
    STATEROOM_STATUS_NOT_CONNECTED = 52,
    // The room has as many clients as `max_clients` allows.
    STATEROOM_STATUS_ROOM_FULL = 53,
    // The message is longer than `max_message_bytes`: it is never accepted.
    STATEROOM_STATUS_MESSAGE_TOO_LONG = 54,
    // The room is busy and its inbox is full: try again after the next poll.
    STATEROOM_STATUS_INBOX_FULL = 55,
    // The bytes are no snapshot, or a damaged one, or of a later format.
    STATEROOM_STATUS_INVALID_SNAPSHOT = 64,
    // The snapshot is of another module, another version of the interpreter or another way to pass
    // payloads, or of a room under other limits; the message says of which.
    STATEROOM_STATUS_OTHER_SNAPSHOT = 65,
    // A callback refused an output, which must be sent before the room can be saved.
    STATEROOM_STATUS_OUTPUTS_WAITING = 66,
    // Events wait for the room, so that it does not hibernate.
    STATEROOM_STATUS_BUSY = 67,
};

// Returns what a status means, in a few words: static, and ended by a NUL. The message that a
// function writes to `error` says more.
//
// Any thread, at any time.
const char *stateroom_status_text(stateroom_status status);

// Memory of the caller's that a function writes a text to: UTF-8, ended by a NUL. What does not
// fit is cut off, after a whole character; `length` then is `capacity` or more.
//
// As the last parameter, `error`, it receives the message of a function that fails, and is
// emptied by one that succeeds. It may be NULL. 4096 bytes hold nearly any message; those about
// modules are the longest.
typedef struct stateroom_buffer {
    // Set by the caller: where to write. May be NULL if `capacity` is 0.
    char *data;
    // Set by the caller: how many bytes there are, with the NUL.
    size_t capacity;
    // Set by the function: bytes of the whole text, without the NUL.
    size_t length;
} stateroom_buffer;

// ==== The allocator ===========================================================================

// An allocator. Its functions are called by any thread that uses the library, and must not call
// it.
typedef struct stateroom_allocator {
    // sizeof (stateroom_allocator).
    size_t size;
    // Given to each function.
    void *user;
    // Allocates `size` bytes, at least 1, at a multiple of `align`, a power of 2. Returns NULL
    // if there is no memory. Required.
    void *(*allocate)(void *user, size_t size, size_t align);
    // Frees what was allocated with this `size` and `align`. Required.
    void (*deallocate)(void *user, void *memory, size_t size, size_t align);
    // Changes the size of what was allocated with `old_size` and `align`, keeping its contents.
    // Returns NULL, and leaves it as it is, if there is no memory. NULL: allocate, copy and
    // free.
    void *(*reallocate)(void *user, void *memory, size_t old_size, size_t align, size_t new_size);
} stateroom_allocator;

// Sets the allocator for everything that the library allocates from now on, in the whole
// process. It is copied, and cannot be changed any more. Without this call the library uses the
// operating system's allocator; a library built without `std` has none.
//
// When it returns NULL the process ends, or, without `std`, stateroom_panic is called: so keep a
// reserve, and refuse modules that do not fit (stateroom_module_estimate_heap).
//
// Before any other function, and while no other thread uses the library. Errors:
// INVALID_ARGUMENT, TOO_LATE if something was allocated already.
stateroom_status stateroom_allocator_set(const stateroom_allocator *allocator,
                                         stateroom_buffer *error);

// ==== Limits ==================================================================================

// The limits of a module and of each of its rooms. A module that exceeds one is refused; a guest
// that exceeds one fails; a client that exceeds one gets an error.
//
// Fill it with stateroom_limits_default or stateroom_limits_small, and change what you must.
// What a program that was compiled with an older header does not know has its default.
typedef struct stateroom_limits {
    // sizeof (stateroom_limits).
    size_t size;
    // Length of a module in bytes. Default 16 MiB, small 128 KiB.
    size_t max_module_bytes;
    // Linear memory of one room in bytes. Default 64 MiB, small 64 KiB.
    size_t max_memory_bytes;
    // Elements of all tables of one room. Default 65,536, small 1,024.
    size_t max_table_elements;
    // Heap that one room takes for what its module declares, in bytes. Default 16 MiB, small 64
    // KiB.
    size_t max_instance_bytes;
    // Locals that a function may declare. Default 800, small 200.
    size_t max_function_locals;
    // The interpreter's value stack of one room in bytes. Default 1 MiB, small 4 KiB.
    size_t max_stack_bytes;
    // Depth of nested calls. Default 10,000, small 32.
    size_t max_recursion_depth;
    // Length of one message in bytes, to and from a room. Default 1 MiB, small 1 KiB.
    size_t max_message_bytes;
    // Events that wait for a busy room; at least 2. Default 1,024, small 8.
    size_t max_inbox_events;
    // Bytes of the messages that wait; at least `max_message_bytes`. Default 4 MiB, small 2 KiB.
    size_t max_inbox_bytes;
    // Messages that a room may send within one event. Default 4,096, small 16.
    size_t max_outbox_messages;
    // Bytes that a room may send within one event. Default 4 MiB, small 4 KiB.
    size_t max_outbox_bytes;
    // Connected clients of one room. Default 1,024, small 8.
    size_t max_clients;
    // Length of a room's id in bytes. Default 256, small 32.
    size_t max_room_id_bytes;
    // Bytes that a guest may print to the log within one event. Default 16 KiB, small 1 KiB.
    size_t max_log_bytes_per_event;
    // The same for each second of the room's time. Default 16 KiB, small 1 KiB.
    size_t max_log_bytes_per_second;
    // Fuel that one event may use; one unit is about one simple instruction. STATEROOM_UNLIMITED
    // turns metering off: an endless loop then hangs the host, so it is for trusted modules
    // only. Default 100 million, small 1 million.
    uint64_t max_fuel_per_event;
    // Fuel after which a guest is paused and other rooms have their turn. Default 1 million,
    // small 10,000.
    uint64_t fuel_per_slice;
} stateroom_limits;

// Sets limits to those for a server or a desktop. The caller has set `limits->size`.
//
// Any thread. Errors: INVALID_ARGUMENT.
stateroom_status stateroom_limits_default(stateroom_limits *limits, stateroom_buffer *error);

// Sets limits to those for a microcontroller with some hundred KiB of RAM. The caller has set
// `limits->size`.
//
// Any thread. Errors: INVALID_ARGUMENT.
stateroom_status stateroom_limits_small(stateroom_limits *limits, stateroom_buffer *error);

// ==== Modules =================================================================================

// When the functions of a module are translated for the interpreter.
typedef int32_t stateroom_compilation;
enum {
    // Each at its first call; all are validated when the module is loaded. The default.
    STATEROOM_COMPILATION_LAZY = 0,
    // All when the module is loaded, so that no event waits for a translation or allocates for
    // it.
    STATEROOM_COMPILATION_EAGER = 1,
    // Each is validated and translated at its first call: for modules that were checked before
    // and must start at once.
    STATEROOM_COMPILATION_ON_DEMAND = 2,
};

// What happens to the buffer in a guest that payloads are passed in.
typedef int32_t stateroom_payload_buffer;
enum {
    // It is kept for guests that are known to allow it. The default.
    STATEROOM_PAYLOAD_BUFFER_AUTO = 0,
    // It is kept between events.
    STATEROOM_PAYLOAD_BUFFER_KEEP = 1,
    // It is allocated and freed for each event.
    STATEROOM_PAYLOAD_BUFFER_PER_EVENT = 2,
};

// The interface between a module and its host.
typedef int32_t stateroom_abi;
enum {
    // The documented interface: `jam_malloc`, `connect`, `message`, `send_message`, ….
    STATEROOM_ABI_V0_2 = 2,
    // The interface of `stateroom-wasm` 0.4: `stateroom_recv`, `stateroom_send`.
    STATEROOM_ABI_V0_4 = 4,
};

// A module: compiled and checked once, shared by its rooms.
typedef struct stateroom_module stateroom_module;

// How a module is loaded. Set `size` and leave everything else 0 for the defaults.
typedef struct stateroom_load_options {
    // sizeof (stateroom_load_options).
    size_t size;
    // The limits of the module and its rooms; read during the call. NULL: the default ones.
    const stateroom_limits *limits;
    // When its functions are translated.
    stateroom_compilation compilation;
    // Whether its guests keep their buffer for payloads.
    stateroom_payload_buffer payload_buffer;
    // Not 0: rooms of the module can be saved, and may have the fault policy ROLLBACK.
    int32_t snapshots;
    // Not 0: the module may use SIMD instructions.
    int32_t simd;
} stateroom_load_options;

// What a module is.
typedef struct stateroom_module_info {
    // Set by the caller: sizeof (stateroom_module_info).
    size_t size;
    // The interface that it uses.
    stateroom_abi abi;
    // Not 0: its guests keep their buffer for payloads.
    int32_t keeps_payload_buffer;
} stateroom_module_info;

// Estimated bytes of heap on a 32-bit target; on a 64-bit target about twice as many.
typedef struct stateroom_heap_estimate {
    // Set by the caller: sizeof (stateroom_heap_estimate).
    size_t size;
    // The peak while the module is loaded.
    size_t load;
    // For as long as the module or a room of it exists.
    size_t module;
    // For each room.
    size_t room;
    // The part of `room` that is the guest's memory, which is one allocation.
    size_t memory;
    // What must be free for the module and one room.
    size_t with_one_room;
} stateroom_heap_estimate;

// Compiles a module, and checks that it is a room; to check one, load and free it. `wasm` is
// read during the call. `options` may be NULL.
//
// The caller owns `*module` and frees it with stateroom_module_free; on failure it is NULL.
//
// Any thread. A module may be used by several threads at once, but rooms of one module on
// several threads slow each other down; so load it once for each.
//
// Errors: INVALID_ARGUMENT, UNSUPPORTED, INVALID_LIMITS, INVALID_MODULE, NOT_A_ROOM (the message
// lists all problems, one a line), MODULE_TOO_LARGE, HIDDEN_STATE.
stateroom_status stateroom_module_load(const void *wasm,
                                       size_t wasm_len,
                                       const stateroom_load_options *options,
                                       stateroom_module **module,
                                       stateroom_buffer *error);

// Frees a module and sets `*module` to NULL; a no-op if it is NULL. Rooms that are open go on.
//
// No other thread may be using this handle. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
stateroom_status stateroom_module_free(stateroom_module **module, stateroom_buffer *error);

// Says what a module is. The caller has set `info->size`.
//
// Any thread. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
stateroom_status stateroom_module_get_info(const stateroom_module *module,
                                           stateroom_module_info *info,
                                           stateroom_buffer *error);

// Writes the limits that a module was loaded with. The caller has set `limits->size`.
//
// Any thread. Errors: INVALID_ARGUMENT, WRONG_HANDLE.
stateroom_status stateroom_module_get_limits(const stateroom_module *module,
                                             stateroom_limits *limits,
                                             stateroom_buffer *error);

// Estimates the heap for loading a module and opening a room, from its bytes, which may be
// anything. It allocates nothing. Where memory is short, refuse a module whose estimate does not
// fit. `limits` may be NULL for the default ones. The caller has set `estimate->size`.
//
// Any thread. Errors: INVALID_ARGUMENT.
stateroom_status stateroom_module_estimate_heap(const void *wasm,
                                                size_t wasm_len,
                                                const stateroom_limits *limits,
                                                stateroom_heap_estimate *estimate,
                                                stateroom_buffer *error);

// ==== Faults ==================================================================================

// What a guest did wrong, as a number; its text says more. Later versions may have others.
typedef int32_t stateroom_fault;
enum {
    // Nothing.
    STATEROOM_FAULT_NONE = 0,
    // An instruction trapped: a panic, an access out of bounds, a stack overflow.
    STATEROOM_FAULT_TRAP = 1,
    // One event used more than `max_fuel_per_event`.
    STATEROOM_FAULT_OUT_OF_FUEL = 2,
    // It passed a pointer and a length that are not within its memory.
    STATEROOM_FAULT_BAD_POINTER = 3,
    // It sent a text that is not UTF-8.
    STATEROOM_FAULT_NOT_UTF8 = 4,
    // It sent bytes that do not decode (ABI 0.4).
    STATEROOM_FAULT_UNDECODABLE = 5,
    // It sent a message longer than `max_message_bytes`.
    STATEROOM_FAULT_MESSAGE_TOO_LONG = 6,
    // It sent more than `max_outbox_messages` within one event.
    STATEROOM_FAULT_TOO_MANY_MESSAGES = 7,
    // It sent more than `max_outbox_bytes` within one event.
    STATEROOM_FAULT_TOO_MANY_BYTES = 8,
    // Its allocator returned a buffer that is not within its memory.
    STATEROOM_FAULT_BAD_ALLOCATION = 9,
    // A function that was called for the first time is not valid
    // (STATEROOM_COMPILATION_ON_DEMAND).
    STATEROOM_FAULT_INVALID_FUNCTION = 10,
    // It called `proc_exit`.
    STATEROOM_FAULT_EXIT = 11,
    // It was made for another version of the ABI.
    STATEROOM_FAULT_WRONG_VERSION = 12,
    // Something that this interface has no number for.
    STATEROOM_FAULT_OTHER = 13,
};

// What follows when a guest fails.
typedef int32_t stateroom_on_fault;
enum {
    // For a host: the room closes. For a room: as its host.
    STATEROOM_ON_FAULT_DEFAULT = 0,
    // The room closes. What it had sent is still delivered.
    STATEROOM_ON_FAULT_CLOSE = 1,
    // The room continues with a fresh guest, after a wait.
    STATEROOM_ON_FAULT_RESTART = 2,
    // The room goes on with whatever state its guest is left in.
    STATEROOM_ON_FAULT_CONTINUE = 3,
    // The event is undone. The module must have been loaded with `snapshots`.
    STATEROOM_ON_FAULT_ROLLBACK = 4,
};

// What follows when a guest fails, and how soon. All 0 is the default.
typedef struct stateroom_fault_policy {
    // What follows. The rest is for RESTART.
    stateroom_on_fault on_fault;
    // How many faults in a row are followed by a restart; one more closes the room. 0: 8.
    uint32_t max_restarts;
    // The wait after the first fault in nanoseconds; each further one doubles it. 0: 100 ms.
    uint64_t first_wait;
    // The longest wait in nanoseconds. 0: 30 s.
    uint64_t longest_wait;
} stateroom_fault_policy;

// ==== The log =================================================================================

// How important a line of the log is.
typedef int32_t stateroom_log_level;
enum {
    // An error.
    STATEROOM_LOG_LEVEL_ERROR = 1,
    // A warning: faults, lost outputs, what guests print to standard error.
    STATEROOM_LOG_LEVEL_WARN = 2,
    // Information: what guests print to standard output.
    STATEROOM_LOG_LEVEL_INFO = 3,
    // Details.
    STATEROOM_LOG_LEVEL_DEBUG = 4,
    // More details.
    STATEROOM_LOG_LEVEL_TRACE = 5,
};

// A line of the log. Valid during the callback.
typedef struct stateroom_log_line {
    // How important it is.
    stateroom_log_level level;
    // The line, in UTF-8 without a NUL or an end of line; what a guest printed is escaped.
    const char *text;
    // Its length in bytes.
    size_t text_length;
    // Where it comes from: "guest" for what guests print. In UTF-8 without a NUL.
    const char *target;
    // Its length in bytes.
    size_t target_length;
} stateroom_log_line;

// ==== Figures =================================================================================

// Whether a room runs.
typedef int32_t stateroom_room_state;
enum {
    // It is open.
    STATEROOM_ROOM_STATE_OPEN = 0,
    // It waits for its restart after a fault.
    STATEROOM_ROOM_STATE_RESTARTING = 1,
    // It is closed; the callback `closed` is called when its outputs have been sent.
    STATEROOM_ROOM_STATE_CLOSED = 2,
    // It is open, and hibernates.
    STATEROOM_ROOM_STATE_HIBERNATING = 3,
};

// Counters and figures of a room.
typedef struct stateroom_room_stats {
    // Set by the caller: sizeof (stateroom_room_stats).
    size_t size;
    // Whether it runs.
    stateroom_room_state state;
    // Not 0: the guest's allocator returned null for a payload. The library works around it, but
    // it is a mistake of the module's.
    int32_t has_null_allocator;
    // Connected clients.
    size_t clients;
    // Events that wait in the inbox.
    size_t waiting_events;
    // Bytes of the guest's linear memory.
    size_t memory_bytes;
    // Bytes of heap for what the module declares: an upper bound.
    size_t instance_bytes;
    // Bytes of heap for the state of a room that hibernates.
    size_t hibernated_bytes;
    // Events that were accepted and are over: handled, failed, or dropped when the room closed.
    uint64_t events_handled;
    // Messages of clients that the room accepted.
    uint64_t messages_in;
    // Messages that the room sent; a broadcast counts once.
    uint64_t messages_out;
    // Fuel that the guest used, including what was undone and replayed.
    uint64_t fuel_used;
    // What the library did for the room besides running its guest, in units of fuel that take as
    // long.
    uint64_t host_work;
    // How often the guest failed.
    uint64_t faults;
} stateroom_room_stats;

// Figures of a host. The sums are over the rooms that it has.
typedef struct stateroom_host_stats {
    // Set by the caller: sizeof (stateroom_host_stats).
    size_t size;
    // Not 0: a callback returned WOULD_BLOCK, and the output is kept. Poll when there is space
    // again.
    int32_t is_blocked;
    // Rooms.
    size_t rooms;
    // Connected clients.
    size_t clients;
    // Events that wait in inboxes.
    size_t waiting_events;
    // Bytes of linear memory.
    size_t memory_bytes;
    // Bytes of heap for what modules declare: an upper bound.
    size_t instance_bytes;
} stateroom_host_stats;

// ==== What callbacks are passed ===============================================================

// Who receives a message.
typedef int32_t stateroom_recipient;
enum {
    // Every client of the room.
    STATEROOM_RECIPIENT_BROADCAST = 0,
    // The client `client`, if there is one.
    STATEROOM_RECIPIENT_CLIENT = 1,
    // Every client of the room except `client`.
    STATEROOM_RECIPIENT_EVERYONE_EXCEPT = 2,
};

// What the callbacks `send`, `connected` and `disconnected` return.
typedef int32_t stateroom_send_result;
enum {
    // Done.
    STATEROOM_SEND_RESULT_SENT = 0,
    // There is no space now: the output is kept, with all of the room's that follow, and tried
    // again by the next poll.
    STATEROOM_SEND_RESULT_WOULD_BLOCK = 1,
    // The output is lost, which is logged. Any other number means the same.
    STATEROOM_SEND_RESULT_FAILED = 2,
};

// A message that a room sends. Valid during the callback.
typedef struct stateroom_message {
    // The key of the room.
    stateroom_room room;
    // Who receives it.
    stateroom_recipient recipient;
    // See `recipient`; 0 for a broadcast. As the guest named it: it may have left, or never
    // been.
    uint32_t client;
    // Not 0: the payload is text, in UTF-8. 0: it is bytes.
    int32_t is_text;
    // The payload; never NULL.
    const void *data;
    // Its length in bytes.
    size_t length;
} stateroom_message;

// A room that has ended, and whose key and id name no room any more. Valid during the callback.
typedef struct stateroom_closed_room {
    // Its key.
    stateroom_room room;
    // Its id, in UTF-8 without a NUL.
    const char *id;
    // Length of the id in bytes.
    size_t id_length;
    // Why its guest failed; NONE if stateroom_room_close closed it.
    stateroom_fault fault;
    // The fault as a text, in UTF-8 without a NUL; NULL if there is none.
    const char *fault_text;
    // Length of that text in bytes.
    size_t fault_text_length;
    // The clients that were connected.
    const uint32_t *clients;
    // How many.
    size_t client_count;
    // Its final figures.
    const stateroom_room_stats *stats;
} stateroom_closed_room;

// Returns 1 if a message is for a client of its room that is connected, else 0; also for NULL.
//
// From the callback `send`.
int32_t stateroom_message_is_for(const stateroom_message *message, uint32_t client);

// ==== Hosts ===================================================================================

// A host: runs rooms.
typedef struct stateroom_host stateroom_host;

// Options of a host. Set `size` and `send`, and leave everything else 0 for the defaults.
//
// The callbacks are called by the thread that calls the host, during stateroom_host_poll (`log`:
// during any function of the host), and given `user`. They must return: no C++ exception and no
// longjmp may leave them. They may use other hosts; a call of the same host is refused with
// IN_USE. So put off what must be done to it until the poll has returned. What they are passed
// is theirs until they return.
typedef struct stateroom_host_options {
    // sizeof (stateroom_host_options).
    size_t size;
    // Given to each callback.
    void *user;
    // Sends a message. It must not block. Required.
    stateroom_send_result (*send)(void *user, const stateroom_message *message);
    // The room handles the connect of a client: messages from here on may be for it, and those
    // before were not. Called again when a room restarts.
    stateroom_send_result (*connected)(void *user, stateroom_room room, uint32_t client);
    // The room handles the disconnect of a client: messages from here on are not for it.
    stateroom_send_result (*disconnected)(void *user, stateroom_room room, uint32_t client);
    // A room has ended, by a fault or by stateroom_room_close, and its outputs were sent.
    void (*closed)(void *user, const stateroom_closed_room *room);
    // A line for the log: what guests print, faults that rooms survive, outputs that were lost.
    void (*log)(void *user, const stateroom_log_line *line);
    // What the callbacks have cost since it was called last, in units of fuel that take as long
    // (one is about a nanosecond), such as copies for each recipient of a broadcast. Counted as
    // the room's.
    uint64_t (*take_cost)(void *user);
    // The time now, on the clock of stateroom_host_poll's `now`, for its `deadline`. Without it
    // the library measures with the operating system's clock.
    uint64_t (*clock)(void *user);
    // The wall time at the time 0, in nanoseconds since 1970, for guests that ask for it.
    uint64_t unix_time_at_zero;
    // The seeds of the rooms' random generators are derived from it.
    uint64_t seed;
    // What follows when a guest fails.
    stateroom_fault_policy fault_policy;
    // How many rooms may be open. 0: 10,000.
    size_t max_rooms;
    // The least important lines that `log` gets. 0: INFO.
    stateroom_log_level max_log_level;
} stateroom_host_options;

// Makes a host without rooms. `options` are copied.
//
// The caller owns `*host` and frees it with stateroom_host_free; on failure it is NULL.
//
// Any thread. Hosts are independent of each other.
//
// Errors: INVALID_ARGUMENT, UNSUPPORTED.
stateroom_status stateroom_host_new(const stateroom_host_options *options,
                                    stateroom_host **host,
                                    stateroom_buffer *error);

// Frees a host with its rooms, and sets `*host` to NULL; a no-op if it is NULL. Rooms end
// without a callback but `log`.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE; then nothing is freed.
stateroom_status stateroom_host_free(stateroom_host **host, stateroom_buffer *error);

// Does what there is to do: sends the outputs that were refused, fires the timers that are due,
// gives each room that has work a slice in turn, and reports the rooms that have ended.
//
// `now` is the program's time in nanoseconds, from any origin; time that runs backwards stands
// still. The poll ends when rooms have used `fuel` (STATEROOM_UNLIMITED: no limit) or when the
// time is `deadline` (STATEROOM_NEVER: none); the last slice, and what callbacks take for the
// outputs of its room, may exceed either.
//
// `poll_at`, which may be NULL, receives when to poll next: a time that is not after `now` if
// work is left, STATEROOM_NEVER if there is none. Poll also after events were put in, and when a
// callback that returned WOULD_BLOCK could send again.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED; UNSUPPORTED if there is a deadline,
// and neither the callback `clock` nor a clock of the operating system.
stateroom_status stateroom_host_poll(stateroom_host *host,
                                     uint64_t now,
                                     uint64_t fuel,
                                     uint64_t deadline,
                                     uint64_t *poll_at,
                                     stateroom_buffer *error);

// Writes when to poll next, as stateroom_host_poll does.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
stateroom_status stateroom_host_get_poll_time(const stateroom_host *host,
                                              uint64_t *poll_at,
                                              stateroom_buffer *error);

// Finds the room of an id. `*room` is STATEROOM_NO_ROOM if there is none.
//
// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_host_find_room(const stateroom_host *host,
                                          const char *id,
                                          size_t id_len,
                                          stateroom_room *room,
                                          stateroom_buffer *error);

// Lists the rooms of a host, in the order in which they were opened: writes the keys of the
// first `capacity` ones to `rooms`, and to `*count` how many there are. `rooms` may be NULL if
// `capacity` is 0.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
stateroom_status stateroom_host_get_rooms(const stateroom_host *host,
                                          stateroom_room *rooms,
                                          size_t capacity,
                                          size_t *count,
                                          stateroom_buffer *error);

// Writes the figures of a host. The caller has set `stats->size`.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED.
stateroom_status stateroom_host_get_stats(const stateroom_host *host,
                                          stateroom_host_stats *stats,
                                          stateroom_buffer *error);

// ==== Rooms ===================================================================================

// Options of a room. Set `size` and leave everything else 0 for what the host has.
typedef struct stateroom_room_options {
    // sizeof (stateroom_room_options).
    size_t size;
    // Not 0: `seed` counts.
    int32_t has_seed;
    // Not 0: `unix_time` counts.
    int32_t has_unix_time;
    // Seeds the guest's random generator. The same seed gives the same numbers.
    uint64_t seed;
    // The wall time when the room is opened, in nanoseconds since 1970.
    uint64_t unix_time;
    // What follows when the guest fails.
    stateroom_fault_policy fault_policy;
} stateroom_room_options;

// Opens a room of a module. `options` may be NULL. The module may be freed afterwards. The guest
// is started by the next poll; if it fails, the fault policy is applied.
//
// `*room` receives its key; on failure it is STATEROOM_NO_ROOM.
//
// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, ID_TOO_LONG,
// ID_TAKEN, TOO_MANY_ROOMS, NOT_LOADED_FOR_SNAPSHOTS.
stateroom_status stateroom_room_open(stateroom_host *host,
                                     uint64_t now,
                                     const char *id,
                                     size_t id_len,
                                     const stateroom_module *module,
                                     const stateroom_room_options *options,
                                     stateroom_room *room,
                                     stateroom_buffer *error);

// Closes a room: its guest is dropped without a call, and the events that wait with it. What it
// had sent is still delivered; then the callback `closed` is called, by a poll. A no-op if it is
// closed.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_close(stateroom_host *host,
                                      stateroom_room room,
                                      stateroom_buffer *error);

// Removes a room at once, and drops what it had sent and was not delivered: for a room that
// nobody listens to any more. The callback `closed` is not called.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_discard(stateroom_host *host,
                                        stateroom_room room,
                                        stateroom_buffer *error);

// Connects a client, whose id is from 1 to 2147483647. Like all events it waits in the room's
// inbox until the host is polled.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
// INVALID_CLIENT, ALREADY_CONNECTED, ROOM_FULL, INBOX_FULL.
stateroom_status stateroom_room_connect(stateroom_host *host,
                                        stateroom_room room,
                                        uint32_t client,
                                        stateroom_buffer *error);

// Disconnects a client.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
// INVALID_CLIENT, NOT_CONNECTED.
stateroom_status stateroom_room_disconnect(stateroom_host *host,
                                           stateroom_room room,
                                           uint32_t client,
                                           stateroom_buffer *error);

// Gives a room a text that a client sent: UTF-8, copied. `text` may be NULL if `text_len` is 0.
//
// Errors: INVALID_ARGUMENT, NOT_UTF8, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
// INVALID_CLIENT, NOT_CONNECTED, MESSAGE_TOO_LONG, INBOX_FULL.
stateroom_status stateroom_room_text(stateroom_host *host,
                                     stateroom_room room,
                                     uint32_t client,
                                     const char *text,
                                     size_t text_len,
                                     stateroom_buffer *error);

// Gives a room bytes that a client sent; they are copied. `bytes` may be NULL if `bytes_len` is
// 0.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, CLOSED,
// INVALID_CLIENT, NOT_CONNECTED, MESSAGE_TOO_LONG, INBOX_FULL.
stateroom_status stateroom_room_bytes(stateroom_host *host,
                                      stateroom_room room,
                                      uint32_t client,
                                      const void *bytes,
                                      size_t bytes_len,
                                      stateroom_buffer *error);

// Writes the id of a room.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_get_id(const stateroom_host *host,
                                       stateroom_room room,
                                       stateroom_buffer *id,
                                       stateroom_buffer *error);

// Writes the figures of a room. The caller has set `stats->size`.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_get_stats(const stateroom_host *host,
                                          stateroom_room room,
                                          stateroom_room_stats *stats,
                                          stateroom_buffer *error);

// Writes the latest fault of a room, which it may have survived: its kind to `*fault`, NONE if
// there was none, and what happened to `text`. Either may be NULL.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_get_fault(const stateroom_host *host,
                                          stateroom_room room,
                                          stateroom_fault *fault,
                                          stateroom_buffer *text,
                                          stateroom_buffer *error);

// Lists the connected clients of a room in the order of their ids: writes the first `capacity`
// ones to `clients`, and to `*count` how many there are. `clients` may be NULL if `capacity` is
// 0.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM.
stateroom_status stateroom_room_get_clients(const stateroom_host *host,
                                            stateroom_room room,
                                            uint32_t *clients,
                                            size_t capacity,
                                            size_t *count,
                                            stateroom_buffer *error);

// Returns memory that a room's guest has but does not use to the operating system, for rooms
// that stay: it reads all of that memory once. `released`, which may be NULL, receives how many
// bytes that are; 0 where the operating system has no such call (it is Linux that has).
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNKNOWN_ROOM, UNSUPPORTED.
stateroom_status stateroom_room_trim(stateroom_host *host,
                                     stateroom_room room,
                                     size_t *released,
                                     stateroom_buffer *error);

// ==== Snapshots ===============================================================================

// How a room is loaded. Set `size` and leave everything else 0 for the defaults.
typedef struct stateroom_snapshot_options {
    // sizeof (stateroom_snapshot_options).
    size_t size;
    // Not 0: the room may go on under the limits of the module where they are not those that it ran
    // under. Its guest may observe the difference.
    int32_t other_limits;
} stateroom_snapshot_options;

// What a snapshot says without its module.
typedef struct stateroom_snapshot_info {
    // Set by the caller: sizeof (stateroom_snapshot_info).
    size_t size;
    // The SHA-256 of the room's module, in the binary format.
    uint8_t module_hash[32];
    // A hash of the room's state, equal for rooms that go on in the same way.
    uint8_t state_hash[16];
    // The room's own time, in nanoseconds since it was opened.
    uint64_t room_time;
    // The wall time when it was opened, in nanoseconds since 1970; 0 if its host did not know.
    uint64_t unix_time_at_zero;
    // The wall time when it was saved, in nanoseconds since 1970; 0 if its host did not know.
    uint64_t saved_at;
} stateroom_snapshot_info;

// Saves a room: writes bytes from which stateroom_room_load makes one that goes on exactly here, in
// this process or another, on any machine. The room stays open: discard it if it is to go on
// elsewhere.
//
// An event that the guest is in the middle of is finished first and its outputs are sent, so
// callbacks may be called, also if the function then fails. That takes what the event needs, up to
// `max_fuel_per_event` and without a budget, and if the guest fails, its fault policy follows.
//
// `*length` receives the length of the snapshot. If that is more than `capacity`, nothing is written,
// and the function returns TOO_SMALL; `data` may be NULL if `capacity` is 0.
//
// The module must have been loaded with `snapshots`.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, UNKNOWN_ROOM, CLOSED,
// NOT_LOADED_FOR_SNAPSHOTS, OUTPUTS_WAITING, TOO_SMALL.
stateroom_status stateroom_room_save(stateroom_host *host,
                                     uint64_t now,
                                     stateroom_room room,
                                     void *data,
                                     size_t capacity,
                                     size_t *length,
                                     stateroom_buffer *error);

// Opens a room from a snapshot, under the id that it has there; `*room` receives its key, and is
// STATEROOM_NO_ROOM on failure. Its clients are connected, but `connected` is not called for them. Its
// guest is made by the next poll that has something for it. The room's time goes on by the wall time
// that has passed, as far as both hosts know it; a timer that came due meanwhile fires once, late.
//
// The module must be the one that the room had, loaded with `snapshots`, and with the same limits as
// far as a guest can observe them. `options` may be NULL. Whatever the bytes are, they harm nobody but
// this room.
//
// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, ID_TOO_LONG, ID_TAKEN,
// TOO_MANY_ROOMS, NOT_LOADED_FOR_SNAPSHOTS, INVALID_SNAPSHOT, OTHER_SNAPSHOT.
stateroom_status stateroom_room_load(stateroom_host *host,
                                     uint64_t now,
                                     const stateroom_module *module,
                                     const void *snapshot,
                                     size_t snapshot_len,
                                     const stateroom_snapshot_options *options,
                                     stateroom_room *room,
                                     stateroom_buffer *error);

// Replaces the guest of an idle room by its state, which takes a fraction of the memory. An event, or
// its timer, wakes the room. An event that the guest is in the middle of is finished first.
//
// Errors: as stateroom_room_save, and BUSY if events wait for the room.
stateroom_status stateroom_room_hibernate(stateroom_host *host,
                                          uint64_t now,
                                          stateroom_room room,
                                          stateroom_buffer *error);

// Reads what a snapshot says: which module it needs, and under which limits and which id it ran. Each
// of `info`, `limits` and `id` may be NULL. The caller has set the sizes of the structs. That the
// rest of the snapshot is not damaged is found out when it is loaded.
//
// Any thread. Errors: INVALID_ARGUMENT, UNSUPPORTED, INVALID_SNAPSHOT.
stateroom_status stateroom_snapshot_get_info(const void *snapshot,
                                             size_t snapshot_len,
                                             stateroom_snapshot_info *info,
                                             stateroom_limits *limits,
                                             stateroom_buffer *id,
                                             stateroom_buffer *error);

// ==== Without std ================================================================================

// Only for the library built without `std`, where the program defines it: called when the library
// has failed, or its allocator has returned NULL. `message` is UTF-8, ended by a NUL. It must not
// return; what the library was doing cannot go on.
void stateroom_panic(const char *message, size_t length);

#ifdef __cplusplus
}
#endif

#endif
