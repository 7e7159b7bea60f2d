/* The bytes of a pipe.  See abi/queue.h and sentry/fs/pipe.py, which says what the slots are good for. */
#include "waiter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u
#define SPARE_PAGES 32
#define UNTAKE_MOST (1u << 20) /* slots */

/* Pages that were in use a moment ago: malloc is slower, and their caches are warm. */
static uint8_t *spare[SPARE_PAGES];
static uint32_t spare_count;

static uint8_t *page_get(void)
{
    return spare_count ? spare[--spare_count] : malloc(PAGE);
}

static void page_put(uint8_t *page)
{
    if (spare_count < SPARE_PAGES)
        spare[spare_count++] = page;
    else
        free(page);
}

static struct pipe_slot *slot_at(const struct pipe *p, uint32_t index)
{
    return &p->slots[(p->head + index) & (p->room - 1)];
}

/* A fresh slot behind the last one, NULL without memory.  The caller has seen that there may be one more. */
static struct pipe_slot *slot_push(struct pipe *p, int packet)
{
    struct pipe_slot *slot = slot_at(p, p->count);
    slot->page = page_get();
    if (!slot->page)
        return NULL;
    slot->start = slot->end = 0;
    slot->packet = packet != 0;
    p->count++;
    return slot;
}

static void slot_pop(struct pipe *p)
{
    page_put(slot_at(p, 0)->page);
    p->head = (p->head + 1) & (p->room - 1);
    p->count--;
}

static uint32_t slot_left(const struct pipe_slot *slot)
{
    return (uint32_t)slot->end - slot->start;
}

static int set_room(struct pipe *p, uint32_t slots)
{
    uint32_t room = 1, i;
    struct pipe_slot *fresh;
    while (room < slots)
        room *= 2;
    if (room == p->room)
        return 0;
    fresh = calloc(room, sizeof *fresh);
    if (!fresh)
        return -ENOMEM;
    for (i = 0; i < p->count; i++)
        fresh[i] = *slot_at(p, i);
    free(p->slots);
    p->slots = fresh;
    p->room = room;
    p->head = 0;
    return 0;
}

struct pipe *pipe_new(uint32_t max_slots)
{
    struct pipe *p = calloc(1, sizeof *p);
    if (p && pipe_resize(p, max_slots) < 0) {
        free(p);
        return NULL;
    }
    return p;
}

int pipe_resize(struct pipe *p, uint32_t slots)
{
    int r = set_room(p, slots > p->count ? slots : p->count);
    if (r == 0)
        p->max_slots = slots;
    return r;
}

void pipe_clear(struct pipe *p)
{
    while (p->count)
        slot_pop(p);
    p->size = 0;
}

void pipe_free(struct pipe *p)
{
    if (!p)
        return;
    queue_fini(&p->queue);
    pipe_clear(p);
    free(p->slots);
    free(p);
}

int pipe_merges(const struct pipe *p, uint32_t odd, int packet)
{
    const struct pipe_slot *last;
    if (!odd || packet || !p->count)
        return false;
    last = slot_at(p, p->count - 1);
    return !last->packet && last->end + odd <= PAGE;
}

uint64_t pipe_put(struct pipe *p, const uint8_t *data, uint64_t size, int packet)
{
    uint32_t odd = size & (PAGE - 1);
    uint64_t taken = 0;
    if (pipe_merges(p, odd, packet)) {
        struct pipe_slot *last = slot_at(p, p->count - 1);
        memcpy(last->page + last->end, data, odd);
        last->end += odd;
        taken = odd;
    }
    while (taken < size && p->count < p->max_slots) {
        uint32_t piece = size - taken < PAGE ? (uint32_t)(size - taken) : PAGE;
        struct pipe_slot *slot = slot_push(p, packet);
        if (!slot)
            break;
        memcpy(slot->page, data + taken, piece);
        slot->end = piece;
        taken += piece;
    }
    p->size += taken;
    return taken;
}

static uint32_t piece_of(const struct pipe_slot *slot, uint64_t size)
{
    return slot_left(slot) < size ? slot_left(slot) : (uint32_t)size;
}

uint64_t pipe_peek(const struct pipe *p, uint8_t *buffer, uint64_t size)
{
    uint64_t done = 0;
    uint32_t i;
    for (i = 0; i < p->count && done < size; i++) {
        const struct pipe_slot *slot = slot_at(p, i);
        uint32_t piece = piece_of(slot, size - done);
        memcpy(buffer + done, slot->page + slot->start, piece);
        done += piece;
        if (slot->packet)
            break;
    }
    return done;
}

uint64_t pipe_drop(struct pipe *p, uint64_t copied, uint64_t size)
{
    uint64_t done = 0;
    while (p->count && done < size) {
        struct pipe_slot *slot = slot_at(p, 0);
        uint32_t left = slot_left(slot), piece = piece_of(slot, size - done);
        bool packet = slot->packet;
        if (done + piece > copied)
            break;
        done += piece;
        slot->start += piece;
        p->size -= packet ? left : piece;
        if (packet || piece == left)
            slot_pop(p);
        if (packet)
            break;
    }
    return done;
}

uint64_t pipe_take(struct pipe *p, uint8_t *buffer, uint64_t size)
{
    return pipe_drop(p, pipe_peek(p, buffer, size), size);
}

int pipe_untake(struct pipe *p, const uint8_t *data, uint64_t size)
{
    const uint64_t slots = p->count + (size + PAGE - 1) / PAGE;
    /* Room for max_slots there is always: writers count on it. */
    if (slots > UNTAKE_MOST || (slots > p->max_slots && set_room(p, (uint32_t)slots) < 0))
        return -ENOMEM;
    while (size) {
        uint32_t piece = size & (PAGE - 1) ? size & (PAGE - 1) : PAGE;
        uint8_t *page = page_get();
        if (!page)
            return -ENOMEM;
        size -= piece;
        memcpy(page, data + size, piece);
        p->head = (p->head - 1) & (p->room - 1);
        p->slots[p->head] = (struct pipe_slot){page, 0, (uint16_t)piece, 0};
        p->count++;
        p->size += piece;
    }
    return 0;
}

uint64_t pipe_copy(struct pipe *p, struct pipe *target, uint64_t size)
{
    uint64_t done = 0;
    uint32_t i;
    for (i = 0; i < p->count && done < size && target->count < target->max_slots; i++) {
        const struct pipe_slot *from = slot_at(p, i);
        uint32_t piece = slot_left(from) < size - done ? slot_left(from) : (uint32_t)(size - done);
        struct pipe_slot *slot = slot_push(target, from->packet);
        if (!slot)
            break;
        memcpy(slot->page, from->page + from->start, piece);
        slot->end = piece;
        done += piece;
    }
    target->size += done;
    return done;
}
