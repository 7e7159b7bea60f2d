/* POSIX and OFD record locks of a file (fcntl(2)).  Python's callers are in sentry/fs/locks.py, which waits, and
 * wakes who waits; while anybody does, the engine leaves all locks of the file to it (vnode.guarded). */
#include "vfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static uint32_t total; /* locks of all files */

static bool overlaps(const struct record_lock *a, const struct record_lock *b)
{
    return a->start <= b->end && b->start <= a->end;
}

/* Next to each other counts, too: two of one kind join. */
static bool touches(const struct record_lock *a, const struct record_lock *b)
{
    return (b->end == INT64_MAX || a->start <= b->end + 1) && (a->end == INT64_MAX || b->start <= a->end + 1);
}

/* F_OFD_GETLK asks with F_UNLCK for the locks of its own file (Linux 6.5). */
static bool in_the_way(const struct record_lock *lock, const struct record_lock *wanted)
{
    if (!overlaps(lock, wanted))
        return false;
    if (wanted->kind == LOCK_CLEAR)
        return lock->owner == wanted->owner;
    return lock->owner != wanted->owner && (lock->kind == LOCK_EXCLUSIVE || wanted->kind == LOCK_EXCLUSIVE);
}

const struct record_lock *locks_conflict(const struct vnode *node, const struct record_lock *wanted)
{
    const struct record_locks *locks = node->locks;
    const struct record_lock *found = NULL;
    uint32_t i;
    for (i = 0; locks && i < locks->count; i++) {
        const struct record_lock *lock = locks->lock + i;
        if (!in_the_way(lock, wanted))
            continue;
        if (!found || (lock->owner == found->owner && lock->start < found->start))
            found = lock;
    }
    return found;
}

static void tidy(struct vnode *node)
{
    if (!node->locks || node->locks->count)
        return;
    free(node->locks->lock);
    free(node->locks);
    node->locks = NULL;
}

/* Room for two more: a lock in the middle of another one makes three of it. */
static bool make_room(struct vnode *node)
{
    struct record_locks *locks = node->locks;
    struct record_lock *more;
    uint32_t room;
    if (!locks)
        locks = node->locks = calloc(1, sizeof *locks);
    if (!locks)
        return false;
    if (locks->count + 2 <= locks->room)
        return true;
    room = locks->room ? locks->room * 2 : 4;
    more = realloc(locks->lock, room * sizeof *more);
    if (!more)
        return false;
    locks->lock = more;
    locks->room = room;
    return true;
}

/* How many locks there would be: neither LOCKS_MOST nor LOCKS_ALL_MOST may be exceeded by adding one. */
static uint32_t count_after(const struct record_locks *locks, const struct record_lock *wanted)
{
    uint32_t count = wanted->kind != LOCK_CLEAR, i;
    for (i = 0; i < locks->count; i++) {
        const struct record_lock *lock = locks->lock + i;
        if (lock->owner != wanted->owner || !touches(lock, wanted))
            count++;
        else if (lock->kind != wanted->kind)
            count += (uint32_t)(lock->start < wanted->start) + (uint32_t)(lock->end > wanted->end);
    }
    return count;
}

/* What `new` leaves of `old`, of the same owner and another kind, to `left`: how many pieces. */
static uint32_t cut(const struct record_lock *old, const struct record_lock *new, struct record_lock left[2])
{
    uint32_t count = 0;
    if (old->start < new->start) {
        left[count] = *old;
        if (left[count].end >= new->start)
            left[count].end = new->start - 1;
        count++;
    }
    if (old->end > new->end) {
        left[count] = *old;
        if (left[count].start <= new->end)
            left[count].start = new->end + 1;
        count++;
    }
    return count;
}

/* In place: of the locks that `new` touches only one can be cut in two, and its second half goes to the end. */
static void replace(struct record_locks *locks, struct record_lock new)
{
    struct record_lock left[2], last = {.kind = LOCK_CLEAR};
    uint32_t i, kept = 0, pieces;
    for (i = 0; i < locks->count; i++) {
        const struct record_lock old = locks->lock[i];
        if (old.owner != new.owner || !touches(&old, &new)) {
            locks->lock[kept++] = old;
        } else if (old.kind == new.kind) {
            if (old.start < new.start)
                new.start = old.start;
            if (old.end > new.end)
                new.end = old.end;
        } else {
            pieces = cut(&old, &new, left);
            if (pieces)
                locks->lock[kept++] = left[0];
            if (pieces == 2)
                last = left[1];
        }
    }
    if (last.kind != LOCK_CLEAR)
        locks->lock[kept++] = last;
    if (new.kind != LOCK_CLEAR)
        locks->lock[kept++] = new;
    locks->count = kept;
}

int locks_set(struct vnode *node, const struct record_lock *wanted)
{
    uint32_t count, before;
    if (wanted->kind == LOCK_CLEAR && !node->locks)
        return 0;
    if (!make_room(node)) {
        tidy(node);
        return -ENOLCK;
    }
    before = node->locks->count;
    count = count_after(node->locks, wanted);
    if (count > before && (count > LOCKS_MOST || total + (count - before) > LOCKS_ALL_MOST)) {
        tidy(node);
        return -ENOLCK;
    }
    replace(node->locks, *wanted);
    total += node->locks->count - before;
    tidy(node);
    return 0;
}

uint32_t locks_release(struct vnode *node, uint64_t owner)
{
    struct record_locks *locks = node->locks;
    uint32_t i, kept = 0, dropped;
    if (!locks)
        return 0;
    for (i = 0; i < locks->count; i++)
        if (locks->lock[i].owner != owner)
            locks->lock[kept++] = locks->lock[i];
    dropped = locks->count - kept;
    locks->count = kept;
    total -= dropped;
    tidy(node);
    return dropped;
}
