/* Signal frames, in the case that is nearly every one: enough stack that is there, an XSAVE area of our own size, no
 * alternate stack to come back from.  sentry/kernel/frames.py is the twin and describes the layout; whatever is
 * unusual is its business, nothing has happened by then.
 */
#include "fast.h"
#include "mman.h"
#include "platform.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define FP_MAGIC1 0x46505853u
#define FP_MAGIC2 0x46505845u
#define FXSAVE_SIZE 512
#define EFLAGS_HANDLER_CLEARS (0x400ull | 0x100ull | 0x10000ull) /* DF TF RF */
#define EFLAGS_RESTORED 0x50dd5ull
#define UC_FLAGS 7 /* UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
#define SIGINFO_SIZE 128
#define UNBLOCKABLE (1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1))

struct fp_software {
    uint32_t magic1, extended_size;
    uint64_t features;
    uint32_t size;
} __attribute__((packed));

struct context {
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, trapno, oldmask, cr2, fp, reserved[8];
};

struct ucontext_head {
    uint64_t flags, link, stack;
    uint32_t stack_flags, pad;
    uint64_t stack_size;
};

struct frame {
    uint64_t restorer;
    struct ucontext_head head;
    struct context context;
    uint64_t mask;
    uint8_t info[SIGINFO_SIZE];
};

#define UCONTEXT_SIZE (offsetof(struct frame, info) - offsetof(struct frame, head))

_Static_assert(UCONTEXT_SIZE == 304 && sizeof(struct frame) == 440, "the layout of Linux");

/* The FP state of a thread that has trapped; its area is never larger than XSTATE_MAX. */
static int get_fp(struct engine *e, struct guest_thread *g, uint8_t *state)
{
    const uint32_t before = g->state;
    int r;
    g->state = THREAD_STOPPED; /* as it is, whether or not engine_wait has said so */
    r = guest_get_fpstate(e, g, state, XSTATE_MAX);
    if (g->state == THREAD_STOPPED)
        g->state = before;
    return r;
}

static int set_fp(struct engine *e, struct guest_thread *g, const uint8_t *state, uint32_t size)
{
    const uint32_t before = g->state;
    int r;
    g->state = THREAD_STOPPED;
    r = guest_set_fpstate(e, g, state, size);
    if (g->state == THREAD_STOPPED)
        g->state = before;
    return r;
}

static uint8_t fresh[XSTATE_MAX];

void guest_fresh_fpstate(const void *state, uint32_t size)
{
    memcpy(fresh, state, size < XSTATE_MAX ? size : XSTATE_MAX);
}

/* A handler begins with the FP state of a fresh program (fpu__clear_user_states), its protection keys too: memory that
 * may only be executed stays unreadable. */
static int clear_fp(struct engine *e, struct guest_thread *g, int size)
{
    return set_fp(e, g, fresh, (uint32_t)size);
}

#define FRAME_MAX (sizeof(struct frame) + 128 + XSTATE_MAX + 4)

/* What goes to `*where`, with `size` bytes of FP `state`: its size, or -EAGAIN. */
static int build(const struct guest_thread *g, const struct signal_frame *s, uint8_t *state, int size, uint8_t *buffer,
                 uint64_t *where)
{
    const struct guest_regs *r = &g->regs;
    struct frame *f = (struct frame *)buffer;
    uint64_t fp, at;
    uint32_t magic2 = FP_MAGIC2, i;
    struct fp_software software;
    const struct mm *mm = g->mm;
    if (size < FXSAVE_SIZE + 64 || !mm)
        return -EAGAIN;
    if (s->stack < (uint64_t)size + sizeof *f + 4096 || s->stack > GUEST_TOP)
        return -EAGAIN;
    fp = (s->stack - (uint64_t)size - 4) & ~63ull;
    at = ((fp - sizeof *f) & ~15ull) - 8;
    i = mm_index(mm, at);
    if (at < s->lowest || i == mm->count || mm->vmas[i].start > at)
        return -EAGAIN;
    memset(f, 0, fp - at);
    f->restorer = s->restorer;
    f->head = (struct ucontext_head){.flags = UC_FLAGS, .stack = s->alt_base, .stack_flags = s->alt_flags,
                                     .stack_size = s->alt_size};
    f->context = (struct context){
        r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->rdi, r->rsi, r->rbp, r->rbx, r->rdx,
        r->rax, r->rcx, r->rsp, r->rip, r->eflags, (uint16_t)r->cs, 0, 0, (uint16_t)r->ss,
        s->error, s->trapno, s->mask, s->cr2, fp, {0}};
    f->mask = s->mask;
    memcpy(f->info, s->info, SIGINFO_SIZE);
    software = (struct fp_software){.magic1 = FP_MAGIC1, .extended_size = (uint32_t)size + 4, .size = (uint32_t)size};
    memcpy(&software.features, state + XSTATE_SOFTWARE, 8);
    memset(state + XSTATE_SOFTWARE, 0, FXSAVE_SIZE - XSTATE_SOFTWARE);
    memcpy(state + XSTATE_SOFTWARE, &software, sizeof software);
    memcpy(buffer + (fp - at), state, (size_t)size);
    memcpy(buffer + (fp - at) + size, &magic2, sizeof magic2);
    *where = at;
    return (int)(fp - at) + size + (int)sizeof magic2;
}

static void enter_handler(struct guest_thread *g, const struct signal_frame *s, uint64_t at)
{
    struct guest_regs *r = &g->regs;
    r->rdi = s->info[0] | (uint64_t)s->info[1] << 8;
    r->rsi = at + offsetof(struct frame, info);
    r->rdx = at + offsetof(struct frame, head);
    r->rax = 0;
    r->rsp = at;
    r->rip = s->handler;
    r->eflags &= ~EFLAGS_HANDLER_CLEARS;
}

int guest_push_frame(struct engine *e, struct guest_thread *g, const struct signal_frame *s)
{
    static uint8_t buffer[FRAME_MAX], state[XSTATE_MAX];
    uint64_t at;
    int fp_size = get_fp(e, g, state), size = build(g, s, state, fp_size, buffer, &at);
    if (size < 0 || memory_write(g->tgid, at, buffer, (uint64_t)size) != size || clear_fp(e, g, fp_size) < 0)
        return -EAGAIN;
    enter_handler(g, s, at);
    return 0;
}

/* Of the last call_push_frame. */
static struct guest_regs before;
static uint64_t mask_before;
static uint8_t fp_before[XSTATE_MAX];
static int fp_size;

static void undo_frame(struct call *c)
{
    c->t->g.regs = before;
    c->t->g.hot->sigmask = mask_before;
    set_fp(c->e, &c->t->g, fp_before, (uint32_t)fp_size);
}

int call_push_frame(struct call *c, const struct signal_frame *s)
{
    struct guest_thread *g = &c->t->g;
    uint64_t at;
    int size;
    thread_whole_regs(c->t);
    before = g->regs;
    mask_before = g->hot->sigmask;
    fp_size = get_fp(c->e, g, fp_before); /* no order: the stub has saved it before it came */
    g->regs.rax = 0;
    _Static_assert(FRAME_MAX <= CALL_WINDOW, "a frame fits");
    size = build(g, s, fp_before, fp_size, c->out, &at);
    if (size >= 0 && clear_fp(c->e, g, fp_size) < 0)
        size = -EAGAIN;
    if (size < 0) {
        g->regs = before;
        return size;
    }
    enter_handler(g, s, at);
    c->out_addr = at;
    c->out_size = (uint32_t)size;
    c->undo = undo_frame;
    return 0;
}

/* What XSAVE area a frame's `fp` stands for: its size, 0 where Python has to see it.  `now` is the present one. */
static uint32_t read_fp(struct call *c, uint64_t fp, const uint8_t *now, uint32_t size, uint8_t *state)
{
    struct fp_software software;
    uint64_t enabled;
    if (memory_read(c->t->g.tgid, fp, state, size) != (int64_t)size)
        return 0;
    memcpy(&software, state + XSTATE_SOFTWARE, sizeof software);
    if (software.magic1 != FP_MAGIC1 || software.size != size || software.extended_size < size)
        return 0;
    memcpy(state + XSTATE_SOFTWARE, now + XSTATE_SOFTWARE, 8);
    memcpy(&enabled, state + FXSAVE_SIZE, 8);
    enabled &= software.features;
    memcpy(state + FXSAVE_SIZE, &enabled, 8);
    return size;
}

/* rt_sigreturn(2). */
int fast_sigreturn(struct call *c)
{
    static uint8_t now[XSTATE_MAX], state[XSTATE_MAX];
    struct guest_thread *g = &c->t->g;
    struct guest_regs *r = &g->regs;
    struct {
        struct ucontext_head head;
        struct context context;
        uint64_t mask;
    } u;
    int size;
    _Static_assert(sizeof u == UCONTEXT_SIZE, "without padding");
    thread_whole_regs(c->t);
    if (g->hot->altstack || call_in(c, r->rsp, &u, sizeof u) < 0)
        return FAST_PASS;
    u.mask &= ~UNBLOCKABLE;
    if (!u.context.fp || u.head.stack_flags != SS_DISABLE || g->hot->pending & ~u.mask)
        return FAST_PASS;
    size = get_fp(c->e, g, now);
    if (size < FXSAVE_SIZE + 64 || !read_fp(c, u.context.fp, now, (uint32_t)size, state))
        return FAST_PASS;
    if ((memcmp(now, state, XSTATE_SOFTWARE) || memcmp(now + FXSAVE_SIZE, state + FXSAVE_SIZE, (size_t)size - FXSAVE_SIZE)) &&
        set_fp(c->e, g, state, (uint32_t)size) < 0)
        return FAST_PASS;
    r->r8 = u.context.r8, r->r9 = u.context.r9, r->r10 = u.context.r10, r->r11 = u.context.r11;
    r->r12 = u.context.r12, r->r13 = u.context.r13, r->r14 = u.context.r14, r->r15 = u.context.r15;
    r->rdi = u.context.rdi, r->rsi = u.context.rsi, r->rbp = u.context.rbp, r->rbx = u.context.rbx;
    r->rdx = u.context.rdx, r->rax = u.context.rax, r->rcx = u.context.rcx, r->rsp = u.context.rsp;
    r->rip = u.context.rip;
    r->eflags = (r->eflags & ~EFLAGS_RESTORED) | (u.context.eflags & EFLAGS_RESTORED);
    g->hot->sigmask = u.mask;
    return FAST_JUMP;
}
