// Arm's MPS2+ with the image AN505, a Cortex-M33, as the machine: what the library needs from a
// program without an operating system, and output by semihosting, for QEMU or a debugger.
#include "heap.h"
#include "play.h"

#include <stdint.h>

// From board.ld.
extern uint32_t stack_top[], data_in_flash[], data_start[], data_end[], bss_start[], bss_end[];
extern char heap_start[], heap_end[];

enum { SYS_WRITE0 = 0x04, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

static void semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static _Noreturn void end(uint32_t status)
{
    const uint32_t arguments[] = {APPLICATION_EXIT, status};
    for (;;)
        semihosting(SYS_EXIT_EXTENDED, arguments);
}

void print(const char *text) { semihosting(SYS_WRITE0, text); }

// The library has failed, or there was no memory. A product would record the message and reset.
void stateroom_panic(const char *message, size_t length)
{
    (void)length;
    print(message);
    print("\n");
    end(2);
}

static void fault(void)
{
    print("processor fault\n");
    end(3);
}

int main(void)
{
    const stateroom_allocator allocator = heap_allocator();
    heap_add(heap_start, (size_t)(heap_end - heap_start));
    if (stateroom_allocator_set(&allocator, NULL) != STATEROOM_STATUS_OK)
        return 1;
    if (play() != 0)
        return 1;
    if (heap_used() != 0) {
        print("not everything was freed\n");
        return 1;
    }
    print("heap: ");
    print_number(heap_peak());
    print(" bytes at most\n");
    return 0;
}

_Noreturn void reset(void);

_Noreturn void reset(void)
{
    // The library is built for a processor with a floating-point unit, which is off after a reset.
    volatile uint32_t *const cpacr = (uint32_t *)0xe000ed88;
    *cpacr |= 0xf << 20;
    __asm__ volatile("dsb\nisb" ::: "memory");
    for (uint32_t *from = data_in_flash, *to = data_start; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;)
        *to++ = 0;
    end((uint32_t)main());
}

// What the processor starts with: its stack, and where to go after a reset and after faults.
__attribute__((section(".vectors"), used)) static const void *const vectors[8] = {
    stack_top, reset, fault, fault, fault, fault, fault, fault,
};
