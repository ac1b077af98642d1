/* The allocator of a room, for the host's payloads and for itself: a small first-fit allocator.
 *
 * Free blocks form a list in the order of their addresses, and neighbours are merged, so a room
 * that frees its blocks does not grow endlessly. The list is stored in the free blocks. Blocks in
 * use have no header, because jam_free gets the length of the block.
 *
 * The heap begins where the linker has put the end of the data and grows by pages of 64 KiB. When
 * the host allows no more of them, jam_malloc returns NULL. */

#include "stateroom.h"

const int32_t JAMSOCKET_API_VERSION = 1;
const int32_t JAMSOCKET_API_PROTOCOL = 0;

#define PAGE_BYTES 65536u

/* All blocks are multiples of this. A free block must have room for its entry in the list, and
 * whatever is stored in a block must be aligned. */
#define GRAIN_BYTES 16u

struct free_block {
    uint32_t size;
    struct free_block *next;
};

/* Defined by the linker; only its address is meaningful. */
extern unsigned char __heap_base;

static struct free_block *free_blocks;
static int is_set_up;

/* The size of the block that a request for `size` bytes gets, or 0 when there can be none. */
static uint32_t block_size(uint32_t size)
{
    if (size == 0 || size > UINT32_MAX - PAGE_BYTES)
        return 0;
    return (size + GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES;
}

/* Inserts a block into the list and merges it with its neighbours. */
static void insert_free(uint32_t address, uint32_t size)
{
    struct free_block *block = (struct free_block *)address;
    struct free_block *before = NULL;
    struct free_block *after = free_blocks;

    while (after != NULL && (uint32_t)after < address) {
        before = after;
        after = after->next;
    }
    block->size = size;
    block->next = after;
    if (after != NULL && address + size == (uint32_t)after) {
        block->size += after->size;
        block->next = after->next;
    }
    if (before == NULL) {
        free_blocks = block;
    } else if ((uint32_t)before + before->size == address) {
        before->size += block->size;
        before->next = block->next;
    } else {
        before->next = block;
    }
}

/* Removes a block from the list: the first that is long enough, or the beginning of it. */
static void *allocate(uint32_t size)
{
    for (struct free_block **link = &free_blocks; *link != NULL; link = &(*link)->next) {
        struct free_block *block = *link;
        if (block->size < size)
            continue;
        if (block->size == size) {
            *link = block->next;
        } else {
            struct free_block *rest = (struct free_block *)((uint32_t)block + size);
            rest->size = block->size - size;
            rest->next = block->next;
            *link = rest;
        }
        return block;
    }
    return NULL;
}

/* The rest of the last page behind the data is free initially. */
static void set_up(void)
{
    uint32_t start = ((uint32_t)&__heap_base + GRAIN_BYTES - 1) / GRAIN_BYTES * GRAIN_BYTES;
    uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (end > start)
        insert_free(start, end - start);
    is_set_up = 1;
}

/* Grows the heap by at least `size` bytes. Returns 0 if the host allows no more. The new pages need
 * not follow the old ones: the host may have grown the memory in between. */
static int grow(uint32_t size)
{
    uint32_t pages = (size + PAGE_BYTES - 1) / PAGE_BYTES;
    size_t first = __builtin_wasm_memory_grow(0, pages);
    if (first == SIZE_MAX)
        return 0;
    insert_free((uint32_t)first * PAGE_BYTES, pages * PAGE_BYTES);
    return 1;
}

void *jam_malloc(uint32_t size)
{
    void *block;

    if (!is_set_up)
        set_up();
    size = block_size(size);
    if (size == 0)
        return NULL;
    block = allocate(size);
    if (block == NULL && grow(size))
        block = allocate(size);
    return block;
}

void jam_free(void *block, uint32_t size)
{
    size = block_size(size);
    if (block != NULL && size != 0)
        insert_free((uint32_t)block, size);
}

void stateroom_keep_payload_buffer(void)
{
}
