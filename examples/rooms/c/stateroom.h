/* The ABI 0.2 of Stateroom for rooms in C. Copy this file and malloc.c into your own project and
 * define all six functions that begin with `room_`, even if some of them are empty.
 *
 * A room handles one event at a time and is never re-entered. Its state is in its own variables. */

#ifndef STATEROOM_H
#define STATEROOM_H

#include <stddef.h>
#include <stdint.h>

/* ---- Functions of the host -------------------------------------------------------------------- */

#define STATEROOM_IMPORT(name) __attribute__((import_module("env"), import_name(name)))

/* Recipients: everybody, client n (n itself), or everybody but client n. */
#define STATEROOM_EVERYBODY 0
#define STATEROOM_EVERYBODY_BUT(client) (-(client))

/* Sends a text. The bytes have to be UTF-8. The host copies them before it returns. */
STATEROOM_IMPORT("send_message")
void stateroom_send_text(int32_t recipient, const void *bytes, uint32_t length);

/* Sends a binary message. The host copies the bytes before it returns. */
STATEROOM_IMPORT("send_binary")
void stateroom_send_binary(int32_t recipient, const void *bytes, uint32_t length);

/* Requests one call of room_timer after this many milliseconds. There is one timer: setting it
 * again replaces it, and 0 cancels it. */
STATEROOM_IMPORT("set_timer")
void stateroom_set_timer(uint32_t milliseconds);

/* Prints to the host's log, where a line ends with '\n' or with the event. A module that uses it
 * imports a function of WASI. */
static inline void stateroom_print(const char *text, uint32_t length);

/* ---- Functions of a room ---------------------------------------------------------------------- */

#define STATEROOM_EXPORT(name) __attribute__((export_name(name)))

/* The room was opened. Its id is UTF-8 without a terminating zero. */
STATEROOM_EXPORT("initialize") void room_initialize(const char *name, uint32_t length);

/* Clients come and go. Their ids are greater than zero. */
STATEROOM_EXPORT("connect") void room_connect(int32_t client);
STATEROOM_EXPORT("disconnect") void room_disconnect(int32_t client);

/* A client has sent a text (UTF-8, no terminating zero) or a binary message. The bytes belong to
 * the host and are valid until the function returns. */
STATEROOM_EXPORT("message")
void room_text(int32_t client, const char *text, uint32_t length);
STATEROOM_EXPORT("binary")
void room_binary(int32_t client, const uint8_t *bytes, uint32_t length);

/* The timer has fired. */
STATEROOM_EXPORT("timer") void room_timer(void);

/* The host allocates memory for a message here: see malloc.c. After NULL the message is not
 * delivered. */
STATEROOM_EXPORT("jam_malloc") void *jam_malloc(uint32_t size);
STATEROOM_EXPORT("jam_free") void jam_free(void *block, uint32_t size);

/* Says that the host may keep the block of a message for the next one, which saves it two calls. It
 * is never called. Define it only with an allocator whose blocks nobody else uses until they are
 * freed, however many events later: so is that of malloc.c, which defines it. */
STATEROOM_EXPORT("stateroom_keep_payload_buffer") void stateroom_keep_payload_buffer(void);

/* Which ABI this is. The linker exports the addresses of the two (--export=…), and the host reads
 * the values from memory. They are defined in malloc.c. */
extern const int32_t JAMSOCKET_API_VERSION;
extern const int32_t JAMSOCKET_API_PROTOCOL;

/* ---- How it prints ---------------------------------------------------------------------------- */

struct stateroom_iovec {
    const char *bytes;
    uint32_t length;
};

__attribute__((import_module("wasi_snapshot_preview1"), import_name("fd_write")))
uint32_t stateroom_fd_write(uint32_t fd, const struct stateroom_iovec *iovecs, uint32_t count,
                            uint32_t *written);

static inline void stateroom_print(const char *text, uint32_t length)
{
    const uint32_t standard_error = 2;
    struct stateroom_iovec iovec = {text, length};
    uint32_t written;

    stateroom_fd_write(standard_error, &iovec, 1, &written);
}

#endif
