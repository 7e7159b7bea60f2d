/* Symbols of the vDSO, whole, cut off, and with bytes changed: built with the sanitizers.
 *
 * usage: vdso SEED TIMES */
#include "../../../csrc/platform/vdso.c"

#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

static uint64_t state;

static uint64_t rnd(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

static uint64_t size_here(void)
{
    char line[512];
    uint64_t first, last, size = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &first, &last) == 2)
            size = last - first;
    if (maps)
        fclose(maps);
    return size;
}

static uint64_t look(const uint8_t *image, uint64_t size)
{
    static const char *const names[] = {"__vdso_clock_gettime", "__vdso_getcpu", "clock_gettime", "", "nothing"};
    uint64_t found = 0;
    for (int i = 0; i < 5; i++) {
        uint64_t at = vdso_function(image, size, names[i]);
        if (at && (at > size || size - at < 8))
            abort();
        if (i == 0)
            found = at;
    }
    return found;
}

int main(int argc, char **argv)
{
    const uint8_t *own = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    uint64_t size = size_here(), i, found, hits = 0;
    if (argc < 3 || !own || !size)
        return 2;
    state = strtoull(argv[1], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    found = look(own, size);
    if (!found)
        return 1;
    for (i = strtoull(argv[2], NULL, 0); i; i--) {
        uint64_t cut = rnd() % 3 ? size : rnd() % (size + 1), k;
        uint8_t *copy = malloc(cut);
        if (cut)
            memcpy(copy, own, cut);
        for (k = rnd() % 8; cut && k; k--) /* most often in the headers and tables */
            copy[rnd() % (rnd() % 4 ? cut < 0x800 ? cut : 0x800 : cut)] = (uint8_t)(rnd() % 2 ? rnd() : rnd() % 2 ? 0xff : 0);
        hits += look(copy, cut) == found;
        free(copy);
    }
    printf("%lu\n", hits);
    return hits == 0;
}
