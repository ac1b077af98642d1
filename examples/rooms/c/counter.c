/* Counter: one number that everybody in the room shares.
 *
 *   what happens           reply                                               to
 *   a client connects      the count, such as 0                                the newcomer
 *   +                      the count, one higher                               everybody
 *   -                      the count, one lower                                everybody
 *   +N or -N               the count, higher or lower by N                     everybody
 *   =N or N                the count, which is N now; =-5 makes it negative    everybody
 *   any other text         Say +, -, +N, -N or =N.                             the sender
 *   a binary message       nothing
 *
 * Spaces around the text do not matter. The count is a signed 64-bit number. It saturates, and a
 * number that does not fit is refused. */

#include "stateroom.h"

static const char hint[] = "Say +, -, +N, -N or =N.";

static int64_t count;

/* Parses digits, after an optional sign if `signs` is set. Returns 0 if the text is not such a
 * number or the number does not fit. */
static int read_number(const char *text, uint32_t length, int signs, int64_t *number)
{
    int negative = 0;
    int64_t value = 0;

    if (signs && length > 0 && (text[0] == '+' || text[0] == '-')) {
        negative = text[0] == '-';
        text++;
        length--;
    }
    if (length == 0)
        return 0;
    for (uint32_t i = 0; i < length; i++) {
        int64_t digit = text[i] - '0';
        if (digit < 0 || digit > 9)
            return 0;
        /* The sum is built with its sign, because the lowest number has no positive twin. */
        if (negative ? value < (INT64_MIN + digit) / 10 : value > (INT64_MAX - digit) / 10)
            return 0;
        value = value * 10 + (negative ? -digit : digit);
    }
    *number = value;
    return 1;
}

/* Adds without wrapping around. */
static int64_t add(int64_t a, int64_t b)
{
    if (b > 0 && a > INT64_MAX - b)
        return INT64_MAX;
    if (b < 0 && a < INT64_MIN - b)
        return INT64_MIN;
    return a + b;
}

/* Applies a text to the count. Returns 0 if the text is invalid. */
static int change(const char *text, uint32_t length)
{
    int64_t number = 1;
    char first = length > 0 ? text[0] : 0;

    if (first == '=')
        return read_number(text + 1, length - 1, 1, &count);
    if (first != '+' && first != '-')
        return read_number(text, length, 0, &count);
    if (length > 1 && !read_number(text + 1, length - 1, 0, &number))
        return 0;
    count = add(count, first == '+' ? number : -number);
    return 1;
}

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void send_count(int32_t recipient)
{
    char digits[20]; /* a sign and 19 digits at most */
    uint32_t start = sizeof digits;
    uint64_t rest = count < 0 ? 0 - (uint64_t)count : (uint64_t)count;

    do {
        digits[--start] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (count < 0)
        digits[--start] = '-';
    stateroom_send_text(recipient, digits + start, sizeof digits - start);
}

void room_connect(int32_t client)
{
    send_count(client);
}

void room_text(int32_t client, const char *text, uint32_t length)
{
    while (length > 0 && is_space(text[0])) {
        text++;
        length--;
    }
    while (length > 0 && is_space(text[length - 1]))
        length--;
    if (change(text, length))
        send_count(STATEROOM_EVERYBODY);
    else
        stateroom_send_text(client, hint, sizeof hint - 1);
}

void room_initialize(const char *name, uint32_t length) { (void)name, (void)length; }
void room_disconnect(int32_t client) { (void)client; }
void room_binary(int32_t client, const uint8_t *bytes, uint32_t length)
{
    (void)client, (void)bytes, (void)length;
}
void room_timer(void) {}
