/* Records: the memory that the engine shares with the threads of a stub (csrc/abi/record.h).
 *
 * The records of a process lie in one memfd, which is as long as they are many.  Record `index` lies at index *
 * RECORD_SIZE there; its address in the process is that of slot `index`, but for the first: a forked child's first
 * record has to lie where its parent's thread had its own, since the copied stack pointer leads there.
 */
#include "trap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_RECORDS ((uint32_t)((RECORDS_END - RECORDS_BASE) / RECORD_SIZE))

uint64_t record_address(const struct thread *leader, uint32_t index)
{
    uint32_t slot = index;
    if (index == 0)
        return leader->first_record;
    /* The others count from 0 and leave the first one's slot out. */
    slot = index - 1;
    if (RECORDS_BASE + (uint64_t)slot * RECORD_SIZE >= leader->first_record)
        slot++;
    return RECORDS_BASE + (uint64_t)slot * RECORD_SIZE;
}

/* A free index of the process, whose memfd has room for it. */
int record_index(struct thread *leader, uint32_t *index)
{
    if (leader->free_records) {
        struct free_record *node = leader->free_records;
        leader->free_records = node->next;
        *index = node->index;
        free(node);
        return 0;
    }
    if (leader->record_count >= MAX_RECORDS)
        return -EAGAIN;
    if (ftruncate(leader->record_fd, (off_t)(leader->record_count + 1) * RECORD_SIZE) < 0)
        return -ENOMEM;
    *index = leader->record_count++;
    return 0;
}

/* Map record `index` of the process and make it a newborn's. */
int record_make(struct thread *leader, struct thread *t, uint32_t index, uint64_t address)
{
    void *map = mmap(NULL, RECORD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, leader->record_fd,
                     (off_t)index * RECORD_SIZE);
    if (map == MAP_FAILED)
        return -ENOMEM;
    t->record = map;
    t->record_at = address;
    t->record_number = index;
    t->g.hot = &t->record->hot;
    return 0;
}

void record_unmap(struct thread *t)
{
    if (!t->record)
        return;
    t->g.hot = &t->own_hot;
    munmap(t->record, RECORD_SIZE);
    t->record = NULL;
}

/* The thread is gone, its process is not. */
void record_drop(struct thread *t)
{
    struct free_record *node;
    if (!t->record)
        return;
    record_unmap(t);
    node = malloc(sizeof *node);
    if (!node)
        return; /* the place is lost until the process ends */
    node->index = t->record_number;
    node->next = t->leader->free_records;
    t->leader->free_records = node;
}

void record_drop_process(struct thread *leader)
{
    while (leader->free_records) {
        struct free_record *node = leader->free_records;
        leader->free_records = node->next;
        free(node);
    }
    if (leader->record_fd >= 0)
        close(leader->record_fd);
    leader->record_fd = -1;
}

/* A child goes on where its parent stands: in the registers, or in a signal frame on the record's stack. */
void record_copy(struct record *to, const struct record *from, uint64_t address)
{
    uint64_t frame = *(const volatile uint64_t *)&from->frame; /* it may change under us */
    uint64_t start;
    *to = *from;
    to->state = RECORD_BIRTH;
    to->sleeping = to->engine_waits = to->kick = to->blocked = 0;
    to->out_size = to->in_size = 0;
    to->fp_saved = 0;
    to->actions_known = 0;
    if (from->fp_load)
        memcpy((char *)to + RECORD_FP_LOAD, (const char *)from + RECORD_FP_LOAD, RECORD_FP_LOAD - RECORD_FP_SAVED);
    to->self = address;
    if (from->path != PATH_SIGNAL || frame < address + 0x1000 || frame >= address + RECORD_STACK_TOP)
        return;
    start = (frame - address) & ~63ull;
    memcpy((char *)to + start, (const char *)from + start, RECORD_STACK_TOP - start);
}
