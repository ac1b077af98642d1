// A room in C: two clients join a counter, count, and what the room sends is printed.
#include <stateroom.h>
#include <stdio.h>
#include <stdlib.h>

static char error_text[4096];
static stateroom_buffer error = {error_text, sizeof error_text, 0};

static void check(stateroom_status status)
{
    if (status != STATEROOM_STATUS_OK) {
        fprintf(stderr, "%s\n", error_text);
        exit(EXIT_FAILURE);
    }
}

static stateroom_send_result on_send(void *user, const stateroom_message *message)
{
    (void)user;
    for (uint32_t client = 1; client <= 2; client++)
        if (message->is_text && stateroom_message_is_for(message, client))
            printf("to client %u: %.*s\n", (unsigned)client, (int)message->length,
                   (const char *)message->data);
    return STATEROOM_SEND_RESULT_SENT;
}

static void on_closed(void *user, const stateroom_closed_room *room)
{
    (void)user;
    printf("%.*s is closed: %.*s\n", (int)room->id_length, room->id,
           (int)room->fault_text_length, room->fault_text ? room->fault_text : "");
}

int main(int argc, char **argv)
{
    static unsigned char wasm[1 << 20];
    FILE *file = fopen(argc > 1 ? argv[1] : "../rooms/wasm/counter-c.wasm", "rb");
    if (file == NULL) {
        perror("the module");
        return EXIT_FAILURE;
    }
    size_t length = fread(wasm, 1, sizeof wasm, file);
    fclose(file);

    stateroom_module *module;
    stateroom_host *host;
    stateroom_room lobby;
    stateroom_host_options options = {.size = sizeof options, .send = on_send, .closed = on_closed};
    check(stateroom_module_load(wasm, length, NULL, &module, &error));
    check(stateroom_host_new(&options, &host, &error));
    check(stateroom_room_open(host, 0, "lobby", 5, module, NULL, &lobby, &error));
    check(stateroom_room_connect(host, lobby, 1, &error));
    check(stateroom_room_connect(host, lobby, 2, &error));
    check(stateroom_room_text(host, lobby, 1, "+", 1, &error));
    check(stateroom_room_text(host, lobby, 2, "+41", 3, &error));

    // A game polls once a frame, with a budget; this room has no timer, so there is an end.
    for (uint64_t now = 0; now != STATEROOM_NEVER;)
        check(stateroom_host_poll(host, now, STATEROOM_UNLIMITED, STATEROOM_NEVER, &now, &error));

    check(stateroom_host_free(&host, &error));
    check(stateroom_module_free(&module, &error));
    return EXIT_SUCCESS;
}
