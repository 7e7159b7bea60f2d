/* Booting the zygote in a thread of its own, while the caller does something else.
 *
 * Only for `trap`, whose zygote nobody traces in the end: on `ptrace` the tracer must stay the thread that it was.
 * The thread is joined, so that none with the rights of the time before is left at the lock-down.
 */
#include "trap.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define STACK_SIZE (128 * 1024)

struct boot_thread {
    struct engine *e;
    const void *filter;
    const struct vdso_part *parts;
    struct guest_thread *zygote;
    uint64_t vdso_start, vdso_elf;
    uint32_t filter_size;
    int stub_fd, part_count, result;
    pthread_t thread;
};

static void *boot(void *argument)
{
    struct boot_thread *b = argument;
    b->result = ptrace_boot(b->e, b->stub_fd, b->filter, b->filter_size, b->parts, b->part_count, &b->vdso_start,
                            &b->vdso_elf, &b->zygote);
    return NULL;
}

struct boot_thread *ptrace_boot_begin(struct engine *e, int stub_fd, const void *filter, uint32_t filter_size,
                                      const struct vdso_part *parts, int part_count)
{
    struct boot_thread *b = calloc(1, sizeof *b);
    pthread_attr_t attributes;
    sigset_t all, old;
    int error;
    if (!b)
        return NULL;
    *b = (struct boot_thread){.e = e,
                              .stub_fd = stub_fd,
                              .filter = filter,
                              .filter_size = filter_size,
                              .parts = parts,
                              .part_count = part_count};
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&b->thread, &attributes, boot, b);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (error) {
        free(b);
        return NULL;
    }
    return b;
}

int ptrace_boot_end(struct boot_thread *b, uint64_t *vdso_start, uint64_t *vdso_elf, struct guest_thread **zygote)
{
    int result;
    pthread_join(b->thread, NULL);
    *vdso_start = b->vdso_start;
    *vdso_elf = b->vdso_elf;
    *zygote = b->zygote;
    result = b->result;
    if (result == 0)
        place_zygote(b->e, b->zygote);
    free(b);
    return result;
}
