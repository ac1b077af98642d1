// Uses each part of the interface once, as C11 and as C++17: smoke ROOM.wasm, a room that echoes.

#include "stateroom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);             \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

// Calls a function that must do what it is for.
#define OK(call)                                                                \
    do {                                                                        \
        stateroom_status status = (call);                                       \
        if (status != STATEROOM_STATUS_OK) {                                    \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__,                      \
                    stateroom_status_text(status), message);                    \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static char message[4096];

struct program {
    size_t live_bytes;
    int sent;
    int connected;
    int closed;
    stateroom_host *host;
    stateroom_status within;
};

static void *allocate(void *user, size_t size, size_t align) {
    void *memory = aligned_alloc(align, (size + align - 1) / align * align);
    if (memory) ((struct program *)user)->live_bytes += size;
    return memory;
}

static void deallocate(void *user, void *memory, size_t size, size_t align) {
    (void)align;
    ((struct program *)user)->live_bytes -= size;
    free(memory);
}

static stateroom_send_result on_send(void *user, const stateroom_message *sent) {
    struct program *program = (struct program *)user;
    CHECK(sent->recipient == STATEROOM_RECIPIENT_CLIENT && sent->client == 1);
    CHECK(stateroom_message_is_for(sent, 1) && !stateroom_message_is_for(sent, 2));
    CHECK(sent->is_text && sent->length == 5 && memcmp(sent->data, "hello", 5) == 0);
    program->sent++;
    program->within = stateroom_room_close(program->host, sent->room, NULL);
    return STATEROOM_SEND_RESULT_SENT;
}

static stateroom_send_result on_connected(void *user, stateroom_room room, uint32_t client) {
    CHECK(room != STATEROOM_NO_ROOM && client == 1);
    ((struct program *)user)->connected++;
    return STATEROOM_SEND_RESULT_SENT;
}

static void on_closed(void *user, const stateroom_closed_room *room) {
    CHECK(room->id_length == 5 && memcmp(room->id, "lobby", 5) == 0);
    CHECK(room->fault == STATEROOM_FAULT_NONE && room->fault_text == NULL);
    CHECK(room->client_count == 1 && room->clients[0] == 1);
    CHECK(room->stats->messages_out == 1);
    ((struct program *)user)->closed++;
}

static void *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    void *bytes = malloc(*length);
    CHECK(bytes && fseek(file, 0, SEEK_SET) == 0);
    CHECK(fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

#ifdef WITHOUT_STD
void stateroom_panic(const char *text, size_t length) {
    fprintf(stderr, "%.*s\n", (int)length, text);
    abort();
}
#endif

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(stateroom_interface_version() == STATEROOM_INTERFACE_VERSION);

    stateroom_buffer error;
    memset(&error, 0, sizeof error);
    error.data = message;
    error.capacity = sizeof message;

    struct program program;
    memset(&program, 0, sizeof program);
    stateroom_allocator allocator;
    memset(&allocator, 0, sizeof allocator);
    allocator.size = sizeof allocator;
    allocator.user = &program;
    allocator.allocate = allocate;
    allocator.deallocate = deallocate;
    OK(stateroom_allocator_set(&allocator, &error));

    size_t length;
    void *wasm = read_file(argv[1], &length);
    stateroom_limits limits;
    limits.size = sizeof limits;
    OK(stateroom_limits_small(&limits, &error));
    stateroom_load_options load;
    memset(&load, 0, sizeof load);
    load.size = sizeof load;
    load.limits = &limits;
    stateroom_module *module = NULL;
    CHECK(stateroom_module_load(wasm, 8, &load, &module, &error) == STATEROOM_STATUS_NOT_A_ROOM);
    CHECK(module == NULL && strstr(message, "not a room"));
    OK(stateroom_module_load(wasm, length, &load, &module, &error));
    free(wasm);
    CHECK(stateroom_allocator_set(&allocator, NULL) == STATEROOM_STATUS_TOO_LATE);

    stateroom_host_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.user = &program;
    options.send = on_send;
    options.connected = on_connected;
    options.closed = on_closed;
    OK(stateroom_host_new(&options, &program.host, &error));

    stateroom_room room;
    OK(stateroom_room_open(program.host, 0, "lobby", 5, module, NULL, &room, &error));
    OK(stateroom_module_free(&module, &error));
    OK(stateroom_room_connect(program.host, room, 1, &error));
    OK(stateroom_room_text(program.host, room, 1, "hello", 5, &error));
    uint64_t poll_at;
    OK(stateroom_host_poll(program.host, 0, STATEROOM_UNLIMITED, STATEROOM_NEVER, &poll_at, &error));
    CHECK(poll_at == STATEROOM_NEVER && program.connected == 1 && program.sent == 1);
    CHECK(program.within == STATEROOM_STATUS_IN_USE);

    stateroom_room_stats stats;
    stats.size = sizeof stats;
    OK(stateroom_room_get_stats(program.host, room, &stats, &error));
    CHECK(stats.messages_in == 1 && stats.messages_out == 1 && stats.fuel_used > 0);

    OK(stateroom_room_close(program.host, room, &error));
    OK(stateroom_host_poll(program.host, 1, STATEROOM_UNLIMITED, STATEROOM_NEVER, NULL, &error));
    CHECK(program.closed == 1);
    CHECK(stateroom_room_close(program.host, room, &error) == STATEROOM_STATUS_UNKNOWN_ROOM);
    CHECK(error.length == strlen(message));

    CHECK(program.live_bytes > 0);
    OK(stateroom_host_free(&program.host, &error));
    CHECK(program.host == NULL);
    CHECK(stateroom_host_poll(program.host, 2, 0, 0, NULL, NULL) == STATEROOM_STATUS_INVALID_ARGUMENT);
    CHECK(program.live_bytes == 0);
    puts("ok");
    return 0;
}
