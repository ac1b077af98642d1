#include "heap.h"

typedef struct piece {
    struct piece *next;
    size_t size;
} piece;

// Sizes and addresses are multiples of it.
enum { GRANULE = sizeof(piece) };

static piece *free_pieces;
static size_t used, peak;

static size_t rounded(size_t size) { return (size + GRANULE - 1) / GRANULE * GRANULE; }

static void merge_with_next(piece *here)
{
    if (here->next != NULL && (char *)here + here->size == (char *)here->next) {
        here->size += here->next->size;
        here->next = here->next->next;
    }
}

static void put(piece *added)
{
    piece *before = NULL;
    piece **link = &free_pieces;
    while (*link != NULL && *link < added) {
        before = *link;
        link = &before->next;
    }
    added->next = *link;
    *link = added;
    merge_with_next(added);
    if (before != NULL)
        merge_with_next(before);
}

static void *allocate(void *user, size_t size, size_t align)
{
    (void)user;
    if (size > SIZE_MAX / 2)
        return NULL;
    size = rounded(size);
    for (piece **link = &free_pieces; *link != NULL; link = &(*link)->next) {
        piece *here = *link;
        const size_t skipped = -(uintptr_t)here & (align > GRANULE ? align - 1 : 0);
        if (here->size < skipped + size)
            continue;
        piece *taken = (piece *)((char *)here + skipped);
        piece *rest = here->next;
        if (here->size > skipped + size) {
            piece *after = (piece *)((char *)taken + size);
            after->next = rest;
            after->size = here->size - skipped - size;
            rest = after;
        }
        if (skipped == 0) {
            *link = rest;
        } else {
            here->next = rest;
            here->size = skipped;
        }
        used += size;
        peak = used > peak ? used : peak;
        return taken;
    }
    return NULL;
}

static void deallocate(void *user, void *memory, size_t size, size_t align)
{
    (void)user, (void)align;
    piece *freed = memory;
    freed->size = rounded(size);
    used -= freed->size;
    put(freed);
}

void heap_add(void *memory, size_t size)
{
    piece *added = memory;
    added->size = size / GRANULE * GRANULE;
    put(added);
}

stateroom_allocator heap_allocator(void)
{
    return (stateroom_allocator){
        .size = sizeof(stateroom_allocator), .allocate = allocate, .deallocate = deallocate};
}

size_t heap_used(void) { return used; }
size_t heap_peak(void) { return peak; }
