/* A counter: one number that everybody in the room shares. */

#include "stateroom.h"

/* The state of the room. */
static int32_t count;

static void send_count(int32_t recipient)
{
    char text[11]; /* a sign and ten digits at most */
    uint32_t start = sizeof text;
    uint32_t rest = count < 0 ? 0 - (uint32_t)count : (uint32_t)count;

    do {
        text[--start] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (count < 0)
        text[--start] = '-';
    stateroom_send_text(recipient, text + start, sizeof text - start);
}

void room_connect(int32_t client)
{
    send_count(client);
}

void room_text(int32_t client, const char *text, uint32_t length)
{
    static const char hint[] = "Say + or -.";

    /* Clients can send anything. */
    if (length == 1 && text[0] == '+' && count < INT32_MAX)
        count++;
    else if (length == 1 && text[0] == '-' && count > INT32_MIN)
        count--;
    else {
        stateroom_send_text(client, hint, sizeof hint - 1);
        return;
    }
    send_count(STATEROOM_EVERYBODY);
}

/* What else happens in a room. */
void room_initialize(const char *id, uint32_t length) { (void)id, (void)length; }
void room_disconnect(int32_t client) { (void)client; }
void room_binary(int32_t client, const uint8_t *bytes, uint32_t length)
{
    (void)client, (void)bytes, (void)length;
}
void room_timer(void) {}
