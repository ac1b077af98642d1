// Rooms in firmware. Nothing here knows the machine or needs a C library, so the same code runs on
// the desktop, and must print the same.
#include "play.h"

#include <stateroom.h>

// The modules, from modules.S.
extern const unsigned char chat_wasm[], chat_wasm_end[], counter_wasm[], counter_wasm_end[],
    hostile_wasm[], hostile_wasm_end[], sdk_wasm[], sdk_wasm_end[];

static char error_text[512];
static stateroom_buffer error = {error_text, sizeof error_text, 0};
static int failures;

// What the desktop and the board agree on: limits, and so each room's fuel.
static const size_t memory_of_a_room = 64 << 10;

static int is_done(stateroom_status status)
{
    if (status == STATEROOM_STATUS_OK)
        return 1;
    print("failed: ");
    print(error_text);
    print("\n");
    failures++;
    return 0;
}

void print_number(uint64_t number)
{
    char digits[21];
    size_t start = sizeof digits - 1;
    digits[start] = 0;
    do {
        digits[--start] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    print(digits + start);
}

// Prints bytes that do not end with a NUL.
static void print_bytes(const char *bytes, size_t length)
{
    char piece[64];
    while (length > 0) {
        size_t count = 0;
        while (count < length && count < sizeof piece - 1) {
            piece[count] = bytes[count];
            count++;
        }
        piece[count] = 0;
        print(piece);
        bytes += count;
        length -= count;
    }
}

static stateroom_send_result on_send(void *user, const stateroom_message *message)
{
    (void)user;
    print(message->recipient == STATEROOM_RECIPIENT_BROADCAST ? "  to all"
          : message->recipient == STATEROOM_RECIPIENT_CLIENT  ? "  to "
                                                              : "  to all but ");
    if (message->recipient != STATEROOM_RECIPIENT_BROADCAST)
        print_number(message->client);
    print(": ");
    print_bytes(message->data, message->length);
    print("\n");
    return STATEROOM_SEND_RESULT_SENT;
}

static void on_closed(void *user, const stateroom_closed_room *room)
{
    (void)user;
    print("  closed: ");
    print_bytes(room->fault_text, room->fault_text_length);
    print("\n");
}

// Lets a room do all that it has to do, a little at a time, as the loop of a firmware would. Time is
// the script's here; a firmware passes what its timer has counted.
static void run(stateroom_host *host, stateroom_room room, uint64_t milliseconds)
{
    const uint64_t now = milliseconds * 1000000;
    stateroom_room_stats stats = {.size = sizeof stats};
    uint64_t poll_at = 0;
    while (poll_at <= now)
        if (!is_done(stateroom_host_poll(host, now, 5000, STATEROOM_NEVER, &poll_at, &error)))
            return;
    // A room that has ended has no figures.
    if (stateroom_room_get_stats(host, room, &stats, NULL) == STATEROOM_STATUS_OK) {
        print_number(milliseconds);
        print(" ms, fuel ");
        print_number(stats.fuel_used);
        print("\n");
    }
}

// Plays a text for each second to a room with two clients, who take turns.
static void play_to(stateroom_host *host, const char *name, const unsigned char *wasm,
                    const unsigned char *wasm_end, const char *const *texts, size_t count)
{
    stateroom_limits limits = {.size = sizeof limits};
    stateroom_load_options options = {.size = sizeof options, .limits = &limits};
    stateroom_module *module = NULL;
    stateroom_room room;

    print(name);
    print("\n");
    if (!is_done(stateroom_limits_small(&limits, &error)))
        return;
    limits.max_memory_bytes = memory_of_a_room;
    // No event waits for a translation, or allocates for it.
    options.compilation = STATEROOM_COMPILATION_EAGER;
    if (is_done(stateroom_module_load(wasm, (size_t)(wasm_end - wasm), &options, &module, &error)) &&
        is_done(stateroom_room_open(host, 0, name, 4, module, NULL, &room, &error)) &&
        is_done(stateroom_room_connect(host, room, 1, &error)) &&
        is_done(stateroom_room_connect(host, room, 2, &error))) {
        run(host, room, 0);
        for (size_t i = 0; i < count; i++) {
            size_t length = 0;
            while (texts[i][length] != 0)
                length++;
            if (is_done(stateroom_room_text(host, room, 1 + i % 2, texts[i], length, &error)))
                run(host, room, 1000 * (i + 1));
        }
        // It may have ended by a fault.
        (void)stateroom_room_discard(host, room, NULL);
    }
    is_done(stateroom_module_free(&module, &error));
}

// What a firmware does before it loads a module that it did not ship with.
static void refuse_large_module(void)
{
    stateroom_limits limits = {.size = sizeof limits};
    stateroom_heap_estimate estimate = {.size = sizeof estimate};
    print("a module of the SDK\n");
    if (is_done(stateroom_limits_small(&limits, &error)) &&
        is_done(stateroom_module_estimate_heap(sdk_wasm, (size_t)(sdk_wasm_end - sdk_wasm), &limits,
                                               &estimate, &error))) {
        print(estimate.with_one_room > 100000 ? "  needs more than 100,000 bytes of heap\n"
                                              : "  fits\n");
    }
}

int play(void)
{
    static const char *const chat[] = {"hello", "/nick ada", "/who", "grüße"};
    static const char *const counter[] = {"+", "+41", "what?"};
    static const char *const hostile[] = {"I am nice", "loop"};
    stateroom_host_options options = {.size = sizeof options, .send = on_send, .closed = on_closed};
    stateroom_host *host;

    if (!is_done(stateroom_host_new(&options, &host, &error)))
        return 1;
    play_to(host, "chat", chat_wasm, chat_wasm_end, chat, sizeof chat / sizeof *chat);
    play_to(host, "counter", counter_wasm, counter_wasm_end, counter, sizeof counter / sizeof *counter);
    play_to(host, "hostile", hostile_wasm, hostile_wasm_end, hostile, sizeof hostile / sizeof *hostile);
    refuse_large_module();
    is_done(stateroom_host_free(&host, &error));
    return failures != 0;
}
