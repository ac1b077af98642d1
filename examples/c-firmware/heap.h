// A heap: a list of free pieces, ordered by address. Sizes are passed when memory is freed, as the
// library does, so that what is in use needs no header.
#ifndef HEAP_H
#define HEAP_H

#include <stateroom.h>

// Adds memory, at a multiple of 16, to the heap.
void heap_add(void *memory, size_t size);

// The heap as the library's allocator.
stateroom_allocator heap_allocator(void);

size_t heap_used(void);
size_t heap_peak(void);

#endif
