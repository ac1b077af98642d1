/* Echo: everything that a client says is echoed to that client alone.
 *
 *   from a client                          reply            to
 *   a text, also an empty one              the same text    the sender
 *   a binary message, also an empty one    the same bytes   the sender
 */

#include "stateroom.h"

void room_text(int32_t client, const char *text, uint32_t length)
{
    stateroom_send_text(client, text, length);
}

void room_binary(int32_t client, const uint8_t *bytes, uint32_t length)
{
    stateroom_send_binary(client, bytes, length);
}

void room_initialize(const char *name, uint32_t length) { (void)name, (void)length; }
void room_connect(int32_t client) { (void)client; }
void room_disconnect(int32_t client) { (void)client; }
void room_timer(void) {}
