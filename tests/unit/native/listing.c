/* Listings as a Gofer might tell them, whole, cut off, and with bytes changed: built with the sanitizers.
 *
 * usage: listing SEED TIMES */
#include "../../../csrc/engine/listing.c"

#include <stdio.h>

static uint64_t state;

static uint64_t rnd(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

/* A good one; its size. */
static size_t make(uint8_t *data)
{
    size_t size = 0;
    for (uint64_t n = rnd() % 8; n; n--) {
        struct listed e = {.path = rnd(), .name_size = (uint16_t)(1 + rnd() % 255), .type = rnd() % 13};
        memcpy(data + size, &e, sizeof e);
        memset(data + size + sizeof e, 'n', e.name_size);
        size += sizeof e + e.name_size;
    }
    return size;
}

/* Everything that fast_dir.c reads of it. */
static void look(const struct listing *l, size_t size)
{
    size_t sum = 0, total = 0;
    if (l->size != size)
        abort();
    for (uint32_t i = 0; i < l->count; i++) {
        struct listed e;
        memcpy(&e, l->data + l->at[i], sizeof e);
        if (!e.name_size || e.name_size > 255)
            abort();
        for (uint32_t k = 0; k < e.name_size; k++)
            sum += l->data[l->at[i] + sizeof e + k];
        total += sizeof e + e.name_size;
    }
    if (total != size || (size && !sum && l->count > 100))
        abort();
}

int main(int argc, char **argv)
{
    static uint8_t made[8 * (sizeof(struct listed) + 255)];
    static struct dnode dirs[4] = {
        {.flags = DNODE_PLAIN}, {.flags = DNODE_PLAIN}, {.flags = DNODE_PLAIN}, {.flags = 0}};
    uint64_t i, good = 0, bad = 0;
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    listing_limit = 4096;
    for (i = strtoull(argv[2], NULL, 0); i; i--) {
        size_t whole = make(made), size = rnd() % 3 ? whole : rnd() % (whole + 1);
        struct dnode *d = dirs + rnd() % 4;
        struct listing *held = listing_get(dirs[rnd() % 4].listing);
        uint8_t *copy = malloc(size ? size : 1);
        memcpy(copy, made, size);
        for (uint64_t k = rnd() % 2 ? 0 : rnd() % 8; size && k; k--)
            copy[rnd() % size] = (uint8_t)(rnd() % 2 ? rnd() : rnd() % 2 ? 0xff : 0);
        if (dnode_list(d, copy, size)) {
            free(copy); /* nothing of it is used any more */
            copy = NULL;
            look(d->listing, size);
            good++;
        } else {
            bad++;
        }
        free(copy);
        if (rnd() % 4 == 0)
            dnode_move_listing(dirs + rnd() % 2, dirs + 2);
        if (held)
            look(held, held->size);
        listing_put(held);
    }
    for (i = 0; i < 4; i++)
        dnode_unlist(dirs + i);
    printf("%lu %lu\n", good, bad);
    return !good || !bad || listed_size != 0 || oldest || newest;
}
