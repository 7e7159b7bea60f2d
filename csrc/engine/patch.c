/* Call-site patching: which instruction to replace, the trampoline, and the memory of what was done.
 *
 * A `syscall` has two bytes, a jump to anywhere five.  So the jump goes over the instruction before it, and the
 * syscall stays: whoever is already past the replaced instruction, restarts a call (rip - 2) or jumps to
 * the syscall finds it.  Only one instruction is ever replaced, so that no thread can be in the middle.
 *
 *      mov $1,%eax         jmp trampoline         trampoline:  mov $1,%eax     (the replaced instruction)
 *      syscall             syscall                             …is this thread ours?  then to the stub
 *      cmp …               cmp …                               else back to the syscall
 *
 * An instruction shorter than five bytes (read(2) has `xor %eax,%eax`) becomes a short jump to padding between two
 * functions, and the padding the long jump.  Nothing ever ran there.
 *
 * None of this is a boundary: a guest that deceives the analysis harms itself.
 */
#include "engine.h"
#include "patch.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define JUMP_SIZE 5
#define SHORT_JUMP_SIZE 2
#define SYSCALL_SIZE 2
#define PATCH_ROOM_MAX sizeof(((struct patch_plan *)0)->padding)
#define SYS_RT_SIGRETURN 15
#define WINDOW 96 /* bytes before an address that tell which instruction ends there, */
#define VOTERS 48 /* of which so many begin chains that count, */
#define VOTERS_MIN 8 /* and so many at least must reach the address */

/* Decoding forward from any byte soon falls into step with the true instructions.  So decode from each byte of
 * the window: of the chains that end at code[end], those that begin far before it must all agree on the last
 * instruction.  Its offset, or -1. */
static int instruction_before(const uint8_t *code, uint32_t end)
{
    int16_t last[WINDOW];
    uint32_t low = end > WINDOW ? end - WINDOW : 0, voters = 0;
    int found = -1;
    struct insn insn;
    for (uint32_t p = end; p-- > low;) {
        uint32_t next = p + insn_decode(code + p, end - p, &insn);
        last[p - low] = -1;
        if (next == end)
            last[p - low] = (int16_t)(p - low);
        else if (next > p && next < end)
            last[p - low] = last[next - low];
    }
    for (uint32_t p = low; p + VOTERS < end; p++) {
        int vote = last[p - low];
        if (vote < 0)
            continue;
        if (found >= 0 && vote != found)
            return -1;
        found = vote;
        voters++;
    }
    return voters >= VOTERS_MIN ? found + (int)low : -1;
}

static bool within_word(uint64_t addr, uint32_t size)
{
    return addr % 8 + size <= 8;
}

/* What a relative jump of `size` bytes at code[p] would reach, as an offset into code; -1: it is none. */
static int64_t branch_target(const uint8_t *code, uint32_t size, uint32_t p)
{
    uint32_t op = code[p], length = 0, wide = 0;
    int32_t distance;
    if ((op & 0xf0) == 0x70 || op == 0xeb || (op >= 0xe0 && op <= 0xe3))
        length = 2;
    else if (op == 0xe8 || op == 0xe9)
        length = wide = 5;
    else if (op == 0x0f && p + 1 < size && (code[p + 1] & 0xf0) == 0x80)
        length = wide = 6;
    if (!length || p + length > size)
        return -1;
    if (!wide)
        return (int64_t)p + 2 + (int8_t)code[p + 1];
    memcpy(&distance, code + p + length - 4, 4);
    return (int64_t)p + length + distance;
}

/* The size of the padding that begins at code[p], if a long jump fits in: no-ops that fill up to an aligned address,
 * and of which the first is not aligned itself, so that it could be the beginning of something.  0: there is none. */
static uint32_t padding_at(const uint8_t *code, uint32_t size, uint64_t base, uint32_t p)
{
    uint32_t end = p;
    struct insn insn;
    if ((base + p) % 16 == 0 || (base + p) % 16 + JUMP_SIZE > 16)
        return 0;
    while (end < size && (base + end) % 16) {
        if (code[end] == 0xcc)
            end++;
        else if (insn_decode(code + end, size - end, &insn) && insn.flags & INSN_NOP)
            end += insn.length;
        else
            break;
    }
    if (end - p < JUMP_SIZE || end - p > PATCH_ROOM_MAX || (base + end) % 8)
        return 0;
    for (uint32_t from = 0; from < size; from++) {
        int64_t to = branch_target(code, size, from);
        if (to >= p && to < p + JUMP_SIZE && (from < p || from >= end))
            return 0;
    }
    return end - p;
}

static bool stops(const uint8_t *code, uint32_t p, uint32_t end)
{
    struct insn insn;
    return insn_decode(code + p, end - p, &insn) == end - p && insn.flags & INSN_STOP;
}

/* Padding behind a jump or return, within reach of a short jump at code[from]: its offset, or -1. */
static int find_hole(const uint8_t *code, uint32_t size, uint64_t base, uint32_t at, uint32_t from)
{
    struct insn insn;
    uint32_t reach = from + SHORT_JUMP_SIZE;
    /* Behind the syscall instructions are certain. */
    for (uint32_t p = at + SYSCALL_SIZE; p < size && p < reach + 128;) {
        uint32_t length = insn_decode(code + p, size - p, &insn);
        if (!length)
            break;
        p += length;
        if (insn.flags & INSN_STOP && p + JUMP_SIZE <= size && p < reach + 128 && padding_at(code, size, base, p))
            return (int)p;
    }
    for (uint32_t p = from - JUMP_SIZE; p + 128 >= reach && p > VOTERS; p--) {
        int before;
        if (!padding_at(code, size, base, p))
            continue;
        before = instruction_before(code, p);
        if (before >= 0 && stops(code, (uint32_t)before, p))
            return (int)p;
    }
    return -1;
}

static uint64_t register_value(const struct guest_regs *r, uint32_t number)
{
    const uint64_t *const all[16] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                                     &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};
    return *all[number];
}

/* Whether the instruction can have left the call's number in eax, as far as one can tell afterwards. */
static bool number_agrees(const uint8_t *code, const struct insn *insn, const struct guest_regs *regs)
{
    const uint8_t *op = code + insn->opcode;
    uint32_t modrm = code[insn->modrm], from, to, wanted = (uint32_t)regs->orig_rax, value;
    if (*op >= 0xb8 && *op <= 0xbf && insn->opcode == (insn->rex ? 1 : 0)) {
        memcpy(&value, op + 1, 4);
        return (*op & 7) != 0 || insn->rex & 1 || value == wanted;
    }
    if (insn->modrm != insn->opcode + 1 || modrm < 0xc0 || code[0] == 0x66 || (insn->rex ? 1 : 0) != insn->opcode)
        return true;
    from = modrm >> 3 & 7;
    to = modrm & 7;
    if (*op == 0xc7 && to == 0 && !(insn->rex & 1)) {
        memcpy(&value, op + 2, 4);
        return value == wanted;
    }
    if (*op == 0x8b || *op == 0x33) {
        from = modrm & 7;
        to = modrm >> 3 & 7;
        from |= insn->rex & 1 ? 8 : 0;
        to |= insn->rex & 4 ? 8 : 0;
    } else if (*op == 0x89 || *op == 0x31) {
        from |= insn->rex & 4 ? 8 : 0;
        to |= insn->rex & 1 ? 8 : 0;
    } else
        return true;
    if (to != 0)
        return true;
    if (*op == 0x31 || *op == 0x33)
        return from != 0 || wanted == 0;
    return from == 0 || from == 1 || from == 11 || (uint32_t)register_value(regs, from) == wanted;
}

int patch_analyze(const uint8_t *code, uint32_t size, uint64_t base, const struct guest_regs *regs,
                  struct patch_plan *plan)
{
    struct insn insn;
    int start, hole;
    uint32_t at = (uint32_t)(regs->rip - SYSCALL_SIZE - base);
    if (regs->rip - base > size || regs->rip - base < SYSCALL_SIZE || code[at] != 0x0f || code[at + 1] != 0x05)
        return PATCH_NO_INSN;
    if ((uint32_t)regs->orig_rax == SYS_RT_SIGRETURN)
        return PATCH_NO_SIGRETURN;
    start = instruction_before(code, at);
    if (start < 0)
        return PATCH_NO_INSN;
    insn_decode(code + start, at - (uint32_t)start, &insn);
    if (!(insn.flags & INSN_MOVABLE) || insn.length < SHORT_JUMP_SIZE)
        return PATCH_NO_MOVE;
    if (!number_agrees(code + start, &insn, regs))
        return PATCH_NO_NUMBER;
    memset(plan, 0, sizeof(*plan));
    plan->site = base + at;
    plan->start = base + (uint32_t)start;
    plan->length = insn.length;
    plan->displacement = (int32_t)insn.displacement;
    memcpy(plan->insn, code + start, insn.length);
    if (insn.length < JUMP_SIZE) {
        hole = find_hole(code, size, base, at, (uint32_t)start);
        if (hole < 0)
            return PATCH_NO_HOLE;
        plan->hole = base + (uint32_t)hole;
        plan->room = padding_at(code, size, base, (uint32_t)hole);
        memcpy(plan->padding, code + hole, plan->room);
    }
    return 0;
}

/* A displacement of 32 bits from the end of an instruction. */
static bool put_distance(uint8_t *to, uint64_t end, uint64_t target)
{
    int64_t distance = (int64_t)(target - end);
    int32_t narrow = (int32_t)distance;
    memcpy(to, &narrow, 4);
    return narrow == distance;
}

/* The trampoline behind the replaced instruction.  rcx and r11 are free, as syscall destroys them; rax is, once
 * the number is in r11.  The red zone is not.  The flags go to ax: lahf and seto take no memory.  An honest thread
 * has its record, in the stub's region [0x7fff00000000, 0x7ffffffff000), in gs base; in any other the trap works as
 * ever.  The stub's entry gets the number in r11d, the address behind the syscall in rcx, the flags in ax. */
static const uint8_t tail[] = {
    0x49, 0x89, 0xc3,                         /*  0       mov %rax,%r11 */
    0x9f,                                     /*  3       lahf */
    0x0f, 0x90, 0xc0,                         /*  4       seto %al */
    0xf3, 0x48, 0x0f, 0xae, 0xc9,             /*  7       rdgsbase %rcx */
    0x48, 0xc1, 0xe9, 0x20,                   /* 12       shr $32,%rcx */
    0x81, 0xf9, 0xff, 0x7f, 0x00, 0x00,       /* 16       cmp $0x7fff,%ecx */
    0x75, 0x0d,                               /* 22       jne real */
    0x48, 0x8d, 0x0d, 0x00, 0x00, 0x00, 0x00, /* 24       lea behind_the_site(%rip),%rcx */
    0xff, 0x25, 0x00, 0x00, 0x00, 0x00,       /* 31       jmp *entry(%rip) */
    0x04, 0x7f,                               /* 37 real: add $0x7f,%al */
    0x9e,                                     /* 39       sahf */
    0x4c, 0x89, 0xd8,                         /* 40       mov %r11,%rax */
    0xe9, 0x00, 0x00, 0x00, 0x00,             /* 43       jmp site */
};
enum { AT_NUMBER = 0, AT_LAHF = 3, AT_SETO = 4, AT_SHR = 12, AT_LEA = 24, AT_ENTRY = 31, AT_REAL = 37,
       AT_SAHF = 39, AT_NUMBER_BACK = 40, AT_BACK = 43 };

uint32_t patch_emit(const struct patch_plan *plan, uint64_t addr, uint64_t entry, uint8_t out[PATCH_SLOT])
{
    uint32_t n = plan->length;
    bool reached;
    int32_t old;
    memset(out, 0xcc, PATCH_SLOT);
    memcpy(out, plan->insn, n);
    memcpy(out + n, tail, sizeof(tail));
    reached = put_distance(out + n + AT_LEA + 3, addr + n + AT_ENTRY, plan->site + SYSCALL_SIZE) &&
              put_distance(out + n + AT_ENTRY + 2, addr + n + AT_REAL, entry) &&
              put_distance(out + n + AT_BACK + 1, addr + n + sizeof(tail), plan->site);
    if (reached && plan->displacement) {
        memcpy(&old, plan->insn + plan->displacement, 4);
        reached = put_distance(out + plan->displacement, addr + n, plan->start + n + (uint64_t)(int64_t)old);
    }
    return reached ? n + (uint32_t)sizeof(tail) : 0;
}

/* Append the stores of `size` bytes to `addr`, one for each aligned word. */
static int add_steps(struct patch_step *steps, int count, uint64_t addr, const uint8_t *bytes, uint32_t size)
{
    while (size) {
        struct patch_step *step = &steps[count++];
        uint32_t piece = 8 - (uint32_t)(addr % 8);
        step->addr = addr;
        step->size = piece < size ? piece : size;
        memcpy(step->bytes, bytes, step->size);
        addr += step->size;
        bytes += step->size;
        size -= step->size;
    }
    return count;
}

/* Where one store can't replace all bytes, the first store brings everybody who comes by to a halt at the old
 * instruction's beginning, the next ones change the bytes behind it, and the last one lets them go on.  A jump to itself
 * does for that; where not even its two bytes lie in one word, an undefined instruction, whose fault
 * means no more than "try again" (patch_settle). */
static const uint8_t spin[SHORT_JUMP_SIZE] = {0xeb, 0xfe};
static const uint8_t stall[1] = {0x06};

int patch_steps(const struct patch_plan *plan, uint64_t trampoline, int alone, int undo,
                struct patch_step steps[PATCH_STEPS_MAX])
{
    uint8_t jump[JUMP_SIZE] = {0xe9}, short_jump[SHORT_JUMP_SIZE] = {0xeb};
    const uint8_t *bytes = undo ? plan->insn : plan->hole ? short_jump : jump;
    uint8_t filled[PATCH_ROOM_MAX];
    uint32_t size = plan->hole ? SHORT_JUMP_SIZE : JUMP_SIZE;
    int count = 0;
    memset(steps, 0, sizeof(*steps) * PATCH_STEPS_MAX);
    if (!put_distance(jump + 1, (plan->hole ? plan->hole : plan->start) + JUMP_SIZE, trampoline))
        return 0;
    if (plan->hole) {
        /* The rest of the padding was instructions; the jump cut one in two. */
        memset(filled, 0xf4, sizeof(filled)); /* hlt: not to be taken for padding again */
        memcpy(filled, jump, JUMP_SIZE);
        short_jump[1] = (uint8_t)(plan->hole - plan->start - SHORT_JUMP_SIZE);
        if (!undo)
            count = add_steps(steps, count, plan->hole, filled, plan->room);
    }
    if (alone || within_word(plan->start, size)) {
        count = add_steps(steps, count, plan->start, bytes, size);
        /* Other threads may stand in the padding: for them its jump stays. */
        if (undo && alone)
            count = add_steps(steps, count, plan->hole, plan->padding, plan->room);
        return count;
    }
    if (within_word(plan->start, sizeof(spin))) {
        count = add_steps(steps, count, plan->start, spin, sizeof(spin));
        count = add_steps(steps, count, plan->start + sizeof(spin), bytes + sizeof(spin), size - sizeof(spin));
        return add_steps(steps, count, plan->start, bytes, sizeof(spin));
    }
    count = add_steps(steps, count, plan->start, stall, sizeof(stall));
    count = add_steps(steps, count, plan->start + sizeof(stall), bytes + sizeof(stall), size - sizeof(stall));
    return add_steps(steps, count, plan->start, bytes, sizeof(stall));
}

/* CF, PF, AF, ZF and SF are where lahf leaves them, in the lowest byte of the flags. */
#define FLAGS_LAHF 0xd5ull
#define FLAG_OVERFLOW 0x800ull

static void patch_leave(const struct patch_site *site, struct guest_regs *regs)
{
    const struct patch_plan *plan = &site->plan;
    uint64_t offset = regs->rip - site->trampoline, flags;
    if (regs->rip == plan->hole || offset < plan->length) {
        regs->rip = plan->start;
        return;
    }
    offset -= plan->length;
    regs->rip = plan->site;
    if (offset <= AT_LAHF || offset >= AT_BACK)
        return;
    if (offset > AT_SHR && offset < AT_NUMBER_BACK) {
        flags = regs->rax >> 8 & FLAGS_LAHF;
        /* seto gives 0 or 1, and add $0x7f makes it 0x7f or 0x80. */
        if (regs->rax & (offset == AT_SAHF ? 0x80 : 1))
            flags |= FLAG_OVERFLOW;
        regs->eflags = (regs->eflags & ~(FLAGS_LAHF | FLAG_OVERFLOW)) | flags;
    }
    regs->rax = regs->r11;
}

/* The sites of an address space: records in the order of their first trap, found by a hash of the address
 * (open addressing, twice as many buckets as there is room for records). */
struct patch_table {
    struct patch_site *sites;
    uint16_t *buckets; /* index + 1; 0: empty */
    uint32_t count, room, patched, threshold;
};

#define FIRST_ROOM 64

static uint32_t hash(uint64_t site, uint32_t room)
{
    return (uint32_t)(site * 0x9e3779b97f4a7c15ull >> 40) & (2 * room - 1);
}

static uint16_t *bucket_of(const struct patch_table *table, uint64_t site)
{
    uint32_t i = hash(site, table->room);
    while (table->buckets[i] && table->sites[table->buckets[i] - 1].plan.site != site)
        i = (i + 1) & (2 * table->room - 1);
    return &table->buckets[i];
}

static void rehash(struct patch_table *table)
{
    memset(table->buckets, 0, sizeof(*table->buckets) * 2 * table->room);
    for (uint32_t i = 0; i < table->count; i++)
        *bucket_of(table, table->sites[i].plan.site) = (uint16_t)(i + 1);
}

static bool resize(struct patch_table *table, uint32_t room)
{
    struct patch_site *sites = realloc(table->sites, sizeof(*sites) * room);
    uint16_t *buckets = calloc(2 * room, sizeof(*buckets));
    if (sites)
        table->sites = sites;
    if (!sites || !buckets) {
        free(buckets);
        return false;
    }
    free(table->buckets);
    table->buckets = buckets;
    table->room = room;
    rehash(table);
    return true;
}

struct patch_table *patch_table_new(uint32_t threshold)
{
    struct patch_table *table = calloc(1, sizeof(*table));
    if (table && !resize(table, FIRST_ROOM)) {
        patch_table_free(table);
        return NULL;
    }
    if (table)
        table->threshold = threshold;
    return table;
}

struct patch_table *patch_table_copy(const struct patch_table *table)
{
    struct patch_table *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return NULL;
    if (!resize(copy, table->room)) {
        patch_table_free(copy);
        return NULL;
    }
    memcpy(copy->sites, table->sites, sizeof(*table->sites) * table->count);
    memcpy(copy->buckets, table->buckets, sizeof(*table->buckets) * 2 * table->room);
    copy->count = table->count;
    copy->patched = table->patched;
    copy->threshold = table->threshold;
    return copy;
}

void patch_table_free(struct patch_table *table)
{
    if (!table)
        return;
    free(table->sites);
    free(table->buckets);
    free(table);
}

void patch_table_stop(struct patch_table *table)
{
    table->threshold = 0;
}

int patch_trap(struct patch_table *table, uint64_t addr)
{
    uint16_t *bucket = bucket_of(table, addr);
    struct patch_site *site;
    if (!*bucket) {
        if (table->count == table->room) {
            if (table->room >= PATCH_SITES_MAX || !resize(table, 2 * table->room))
                return 0;
            bucket = bucket_of(table, addr);
        }
        site = &table->sites[table->count++];
        memset(site, 0, sizeof(*site));
        site->plan.site = addr;
        *bucket = (uint16_t)table->count;
    }
    site = &table->sites[*bucket - 1];
    return site->state == PATCH_SEEN && ++site->traps == table->threshold;
}

struct patch_site *patch_find(struct patch_table *table, uint64_t addr)
{
    uint16_t index = *bucket_of(table, addr);
    return index ? &table->sites[index - 1] : NULL;
}

void patch_set(struct patch_table *table, struct patch_site *site, uint32_t state)
{
    table->patched += (state == PATCH_PATCHED) - (site->state == PATCH_PATCHED);
    site->state = state;
}

static bool overlap(uint64_t addr, uint64_t size, uint64_t start, uint64_t end)
{
    return addr < end && addr + size > start;
}

static bool code_overlaps(const struct patch_site *site, uint64_t start, uint64_t end)
{
    uint64_t addr = site->state == PATCH_PATCHED ? site->plan.start : site->plan.site;
    return overlap(addr, site->plan.site + SYSCALL_SIZE - addr, start, end);
}

/* Whether a patched site has anything to do with [start, end). */
static bool patch_overlaps(const struct patch_site *site, uint64_t start, uint64_t end)
{
    return code_overlaps(site, start, end) || overlap(site->trampoline, PATCH_SLOT, start, end) ||
           (site->plan.hole && overlap(site->plan.hole, site->plan.room, start, end));
}

struct patch_site *patch_touching(struct patch_table *table, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; table->patched && i < table->count; i++)
        if (table->sites[i].state == PATCH_PATCHED && patch_overlaps(&table->sites[i], start, end))
            return &table->sites[i];
    return NULL;
}

int patch_knows(const struct patch_table *table, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < table->count; i++)
        if (patch_overlaps(&table->sites[i], start, end))
            return 1;
    return 0;
}

struct patch_site *patch_inside(struct patch_table *table, uint64_t addr)
{
    for (uint32_t i = 0; i < table->count; i++) {
        struct patch_site *site = &table->sites[i];
        if (site->trampoline && (addr - site->trampoline < PATCH_SLOT || (site->plan.hole && addr == site->plan.hole)))
            return site;
    }
    return NULL;
}

int patch_settle(struct patch_table *table, struct guest_regs *regs, int signo)
{
    const struct patch_site *site = patch_inside(table, regs->rip);
    if (site)
        patch_leave(site, regs);
    for (uint32_t i = 0; signo == SIGILL && i < table->count; i++) {
        uint64_t start = table->sites[i].plan.start;
        if (start == regs->rip && !within_word(start, sizeof(spin)))
            return 1;
    }
    return 0;
}

void patch_forget(struct patch_table *table, uint64_t start, uint64_t end)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < table->count; i++) {
        struct patch_site *site = &table->sites[i];
        if (code_overlaps(site, start, end)) {
            patch_set(table, site, PATCH_SEEN);
            continue;
        }
        if (kept != i)
            table->sites[kept] = *site;
        kept++;
    }
    if (kept != table->count) {
        table->count = kept;
        rehash(table);
    }
}

void patch_drop_trampolines(struct patch_table *table, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < table->count; i++)
        if (overlap(table->sites[i].trampoline, PATCH_SLOT, start, end))
            table->sites[i].trampoline = 0;
}

void patch_overlay(const struct patch_table *table, uint8_t *code, uint32_t size, uint64_t base)
{
    for (uint32_t i = 0; i < table->count; i++) {
        const struct patch_plan *plan = &table->sites[i].plan;
        if (table->sites[i].state != PATCH_PATCHED || !overlap(plan->start, plan->length, base, base + size))
            continue;
        for (uint32_t n = 0; n < plan->length; n++)
            if (plan->start + n - base < size)
                code[plan->start + n - base] = plan->insn[n];
    }
}

uint32_t patch_count(const struct patch_table *table, uint32_t state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < table->count; i++)
        count += table->sites[i].state == state;
    return count;
}
