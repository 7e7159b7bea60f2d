/* The hand-over: a thread tells the engine of its trap, and waits for orders or for the word to go on. */
#include "inside.h"

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define YIELDS 2

static void ring(void)
{
    fence();
    if (get(&shared->sleeping))
        host_call(NR_write, BELL_FD, (uint64_t)&shared->one, 8, 0, 0, 0);
}

void tell(struct record *r, uint32_t state)
{
    set(&r->state, state);
    if (state == RECORD_DONE) {
        fence();
        if (get(&r->engine_waits))
            host_call(NR_futex, (uint64_t)&r->state, FUTEX_WAKE, 1, 0, 0, 0);
    }
}

static bool is_engines_turn(uint32_t state)
{
    return state == RECORD_TRAPPED || state == RECORD_DONE || state == RECORD_PARKED;
}

/* Written only where it changes: the engine looks at it all the time. */
static uint32_t say_where(struct record *r)
{
    uint32_t cpu = current_cpu();
    if (r->cpu != cpu)
        set(&r->cpu, cpu);
    return cpu;
}

/* Until the engine has changed the state. */
static uint32_t await_engine(struct record *r)
{
    uint32_t state = get(&r->state), i, yields = 0;
    uint64_t end = 0;
    while (is_engines_turn(state) && state != RECORD_PARKED) {
        uint32_t cpu = say_where(r);
        if (cpu == get(&shared->engine_cpu)) {
            /* When we are back, it has had its turn. */
            if (yields++ == YIELDS || get(&shared->crowded))
                break;
            host_call(NR_sched_yield, 0, 0, 0, 0, 0, 0);
        } else {
            uint64_t now = ticks();
            if (!end)
                end = now + shared->spin;
            if (now >= end || get(&shared->overloaded))
                break;
        }
        for (i = 0; i < 16 && is_engines_turn(state = get(&r->state)) && state != RECORD_PARKED; i++)
            __asm__ volatile("pause");
    }
    if (!is_engines_turn(state))
        return state;
    if (r->path == PATH_DIRECT)
        save_fp(r); /* so that nobody has to be woken for it */
    set(&r->sleeping, 1);
    fence();
    while (is_engines_turn(state = get(&r->state)))
        host_call(NR_futex, (uint64_t)&r->state, FUTEX_WAIT, state, 0, 0, 0);
    set(&r->sleeping, 0);
    return state;
}

/* Bytes for the guest, if there are any. */
static bool deliver(struct record *r)
{
    uint32_t size = r->out_size;
    return size == 0 || (size <= RECORD_WINDOW_SIZE && copy_out(r->out_addr, window_of(r), size) == 0);
}

/* Registers of the guest that the stub does not use: they are as they were, unless the engine has changed them. */
static void load_others(struct record *r)
{
    const struct guest_regs *g = &r->regs;
    uint64_t gs = g->gs_base ? g->gs_base : (uint64_t)r;
    if (r->fp_load) {
        r->fp_load = 0;
        stub_xrstor((const uint8_t *)r + RECORD_FP_LOAD, shared->fp_features);
    }
    if (get_fs() != g->fs_base)
        __asm__ volatile("wrfsbase %0" ::"r"(g->fs_base));
    if (get_gs() != gs)
        __asm__ volatile("wrgsbase %0" ::"r"(gs));
}

/* Serve the engine until it lets the thread go. */
void serve(struct record *r)
{
    for (;;) {
        uint32_t state;
        while ((state = await_engine(r)) == RECORD_ORDER)
            do_order(r);
        if (state == RECORD_PARTING && !do_last_order(r)) {
            r->kind = ENGINE_REFUSED;
        } else if (deliver(r)) {
            if (state != RECORD_RUN)
                r->regs.rax = (uint64_t)r->result;
            load_others(r);
            return;
        } else {
            r->kind = ENGINE_COPY_FAULT;
        }
        set(&r->state, RECORD_TRAPPED);
        ring();
    }
}

void trap(struct record *r, uint32_t kind)
{
    r->kind = (uint8_t)kind;
    if (kind != ENGINE_SYSCALL)
        r->fp_saved = 0;
    r->regs.fs_base = get_fs();
    say_where(r);
    set(&r->state, RECORD_TRAPPED);
    ring();
    serve(r);
}
