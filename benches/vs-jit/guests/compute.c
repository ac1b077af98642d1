/* Compute inside an event, to compare hosts and engines.
 *
 * The first letter of a text selects the kernel. The reply to the sender is a checksum of the result,
 * in hexadecimal, so that a wrong result is noticed:
 *
 *   h   FNV-1a over 64 KiB, four times    integers and loads
 *   s   the primes below 50,000           loads, stores and branches
 *   l   Life on a torus of 128 x 128, 4 generations
 *   f   the 22nd Fibonacci number, by recursion    calls
 *   n   five bodies, 500 steps            64-bit floating point
 *
 * The reply to any other text is `?`. */

#include "stateroom.h"

static uint32_t hash(void)
{
    static uint8_t data[64 << 10];
    uint32_t state = 2166136261u;

    for (uint32_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 8));
    for (int round = 0; round < 4; round++)
        for (uint32_t i = 0; i < sizeof data; i++)
            state = (state ^ data[i]) * 16777619u;
    return state;
}

static uint32_t sieve(void)
{
    static uint8_t composite[50000];
    const uint32_t end = sizeof composite;
    uint32_t count = 0;

    for (uint32_t i = 0; i < end; i++)
        composite[i] = 0;
    for (uint32_t i = 2; i < end; i++) {
        if (composite[i])
            continue;
        count++;
        for (uint32_t j = i * 2; j < end; j += i)
            composite[j] = 1;
    }
    return count;
}

#define SIDE 128

static uint32_t life(void)
{
    static uint8_t cells[2][SIDE][SIDE];
    uint32_t seed = 1, sum = 0;

    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            seed = seed * 1664525u + 1013904223u;
            cells[0][y][x] = seed >> 31;
        }
    for (int generation = 0; generation < 4; generation++) {
        uint8_t(*now)[SIDE] = cells[generation & 1], (*next)[SIDE] = cells[~generation & 1];
        for (int y = 0; y < SIDE; y++) {
            const uint8_t *above = now[(y + SIDE - 1) % SIDE], *row = now[y], *below = now[(y + 1) % SIDE];
            for (int x = 0; x < SIDE; x++) {
                int left = (x + SIDE - 1) % SIDE, right = (x + 1) % SIDE;
                int around = above[left] + above[x] + above[right] + row[left] + row[right] + below[left] +
                             below[x] + below[right];
                next[y][x] = around == 3 || (around == 2 && row[x]);
            }
        }
    }
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            sum = sum * 31 + cells[0][y][x];
    return sum;
}

/* Not inlined and not turned into a loop: this measures calls. */
__attribute__((noinline)) static uint32_t fib(uint32_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

struct body {
    double x, y, z, vx, vy, vz, mass;
};

static uint32_t n_body(void)
{
    struct body bodies[5];
    double energy = 0;

    for (int i = 0; i < 5; i++)
        bodies[i] = (struct body){ i * 3.0 + 1, i * i - 2.0, 0.5 * i, 0.1 * (i - 2), 0.2 * (2 - i), 0.01 * i,
                                   i ? 0.04 * i : 39.5 };
    for (int step = 0; step < 500; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                struct body *a = &bodies[i], *b = &bodies[j];
                double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
                double square = dx * dx + dy * dy + dz * dz;
                double pull = 0.001 / (square * __builtin_sqrt(square));
                a->vx -= dx * b->mass * pull, a->vy -= dy * b->mass * pull, a->vz -= dz * b->mass * pull;
                b->vx += dx * a->mass * pull, b->vy += dy * a->mass * pull, b->vz += dz * a->mass * pull;
            }
        for (int i = 0; i < 5; i++) {
            bodies[i].x += 0.001 * bodies[i].vx;
            bodies[i].y += 0.001 * bodies[i].vy;
            bodies[i].z += 0.001 * bodies[i].vz;
        }
    }
    for (int i = 0; i < 5; i++) {
        struct body *a = &bodies[i];
        energy += 0.5 * a->mass * (a->vx * a->vx + a->vy * a->vy + a->vz * a->vz);
    }
    union {
        double number;
        uint64_t bits;
    } sum = { energy };
    return (uint32_t)(sum.bits ^ sum.bits >> 32);
}

void room_text(int32_t client, const char *text, uint32_t length)
{
    uint32_t number;
    char reply[8];

    switch (length ? text[0] : 0) {
    case 'h': number = hash(); break;
    case 's': number = sieve(); break;
    case 'l': number = life(); break;
    case 'f': number = fib(22); break;
    case 'n': number = n_body(); break;
    default: stateroom_send_text(client, "?", 1); return;
    }
    for (int i = 0; i < 8; i++)
        reply[i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
    stateroom_send_text(client, reply, sizeof reply);
}

void room_binary(int32_t client, const uint8_t *bytes, uint32_t length)
{
    (void)client, (void)bytes, (void)length;
}
void room_initialize(const char *name, uint32_t length) { (void)name, (void)length; }
void room_connect(int32_t client) { (void)client; }
void room_disconnect(int32_t client) { (void)client; }
void room_timer(void) {}
