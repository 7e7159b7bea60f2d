/* What the engine orders a thread to do while it owns it. */
#include "inside.h"

#define EPERM 1
#define EINTR 4
#define EBADF 9
#define CLONE_FILES 0x400
#define PROT_RWX 7

/* Others may execute the page all the while.  The second mprotect takes a right away, so every CPU that runs a
 * thread of ours is interrupted for it: none goes on with the old bytes. */
static int64_t store_code(const uint64_t *a)
{
    int64_t result = host_call(NR_mprotect, a[2], a[3], PROT_RWX, 0, 0, 0);
    if (result == 0) {
        result = stub_store(a[0], a[1]);
        host_call(NR_mprotect, a[2], a[3], a[4], 0, 0, 0);
    }
    return result;
}

static void give_back(uint32_t lends)
{
    uint32_t i;
    for (i = 0; i < lends && i < LENT_MAX; i++)
        host_call(NR_close, LENT_FD + i, 0, 0, 0, 0, 0);
}

static bool failed(int64_t result)
{
    return result < 0 && result >= -4095;
}

/* A kick may interrupt us while we ask for a descriptor. */
bool do_last_order(struct record *r)
{
    const uint64_t *a = r->last_args;
    uint32_t lends = r->last_lends;
    int64_t lent = -EBADF;
    if (lends)
        do
            lent = host_call(NR_close, LEND_TOKEN, 0, 0, 0, 0, 0);
        while (lent == -EINTR);
    r->last_result =
        lent == -EBADF ? host_call(r->last_nr, a[0], a[1], a[2], a[3], a[4], a[5]) : lent ? lent : -EPERM;
    give_back(lends);
    return !failed(r->last_result);
}

void do_order(struct record *r)
{
    const uint64_t *a = r->args;
    uint32_t lends = r->lends;
    uint64_t flags;
    if (lends && r->nr != ORDER_CLONE) {
        int64_t lent = host_call(NR_close, LEND_TOKEN, 0, 0, 0, 0, 0);
        if (lent != -EBADF) {
            r->result = lent;
            goto done;
        }
    }
    switch (r->nr) {
    case ORDER_CLONE:
        /* Lent by the call itself.  A thread that shares them gives them back when it has its record. */
        flags = a[0];
        r->result = stub_clone(flags, a[1], a[2], a[3]);
        if (r->result >= 0 && flags & CLONE_FILES)
            lends = 0;
        break;
    case ORDER_CMPXCHG:
        r->result = stub_cmpxchg(a[0], (uint32_t)a[1], (uint32_t)a[2]);
        break;
    case ORDER_XSAVE:
        save_fp(r);
        r->result = 0;
        break;
    case ORDER_STORE:
        r->result = store_code(a);
        break;
    case ORDER_EXIT:
        stub_exit(&r->state);
    default:
        r->result = host_call(r->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
done:
    give_back(lends);
    tell(r, RECORD_DONE);
}
