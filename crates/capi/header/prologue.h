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
