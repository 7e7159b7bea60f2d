/* What the kernel hands to a new image: the auxiliary vector and the first stack page. */
#include "check.h"

#include <elf.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

extern char **environ;
extern char __ehdr_start[] __attribute__((weak, visibility("hidden")));

static bool all_zero(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

int main(int argc, char **argv)
{
    CASE("values");
    say("AT_PAGESZ %lu", getauxval(AT_PAGESZ));
    say("AT_SECURE %lu", getauxval(AT_SECURE));
    say("AT_CLKTCK %lu", getauxval(AT_CLKTCK));
    say("AT_FLAGS %lu", getauxval(AT_FLAGS));
    say("AT_PHENT %lu", getauxval(AT_PHENT));
    say("AT_PLATFORM %s", (char *)getauxval(AT_PLATFORM));
    SHOW_IF(getauxval(AT_UID) == getuid());
    SHOW_IF(getauxval(AT_EUID) == geteuid());
    SHOW_IF(getauxval(AT_GID) == getgid());
    SHOW_IF(getauxval(AT_EGID) == getegid());
    SHOW_IF(getauxval(AT_HWCAP) != 0);
    SHOW_IF(getauxval(AT_MINSIGSTKSZ) >= 1024 && getauxval(AT_MINSIGSTKSZ) < 65536);
    CASE("strings on the stack");
    const char *name = (char *)getauxval(AT_EXECFN);
    SHOW_IF(name && strcmp(name, argv[0]) == 0);
    SHOW_IF(argv[argc] == NULL);
    SHOW_IF(environ == argv + argc + 1);
    SHOW_IF(name > argv[0]);
    SHOW_IF(((uintptr_t)name & ~(uintptr_t)4095) >= ((uintptr_t)argv & ~(uintptr_t)4095));
    CASE("AT_RANDOM");
    const unsigned char *random = (void *)getauxval(AT_RANDOM);
    SHOW_IF(random != NULL);
    SHOW_IF(!all_zero(random, 16));
    CASE("program headers");
    const ElfW(Phdr) *headers = (void *)getauxval(AT_PHDR);
    size_t count = getauxval(AT_PHNUM);
    bool load = false, stack_exec = false;
    for (size_t i = 0; i < count; i++) {
        load |= headers[i].p_type == PT_LOAD;
        stack_exec |= headers[i].p_type == PT_GNU_STACK && headers[i].p_flags & PF_X;
    }
    SHOW_IF(count > 0);
    SHOW_IF(load);
    SHOW_IF(stack_exec);
    SHOW_IF(getauxval(AT_ENTRY) != 0);
    SHOW_IF(getauxval(AT_ENTRY) > getauxval(AT_PHDR));
    CASE("interpreter");
    uintptr_t base = getauxval(AT_BASE);
    bool dynamic = false;
    for (size_t i = 0; i < count; i++)
        dynamic |= headers[i].p_type == PT_INTERP;
    say("AT_BASE %s", base ? "set" : "zero");
    SHOW_IF((base != 0) == dynamic);
    if (base)
        SHOW_IF(memcmp((void *)base, ELFMAG, SELFMAG) == 0);
    CASE("the vDSO");
    const ElfW(Ehdr) *vdso = (void *)getauxval(AT_SYSINFO_EHDR);
    if (vdso)
        SHOW_IF(memcmp(vdso, ELFMAG, SELFMAG) == 0 && vdso->e_type == ET_DYN && vdso->e_machine == EM_X86_64);
    struct timespec now;
    SHOW(clock_gettime(CLOCK_MONOTONIC, &now));
    CASE("the raw vector");
    ElfW(auxv_t) *aux = (void *)(environ + 0);
    char **env = environ;
    while (*env++)
        ;
    aux = (void *)env;
    int entries = 0;
    while (aux[entries].a_type != AT_NULL && entries < 64)
        entries++;
    SHOW_IF(entries >= 16 && entries < 64);
    SHOW_IF(((uintptr_t)argv - 8) % 16 == 0);
    CASE("PR_GET_AUXV");
    char same[64 * sizeof *aux];
    long size = prctl(0x41555856, same, sizeof same, 0, 0);
    if (size > 0)
        SHOW_IF(memcmp(same, aux, entries * sizeof *aux) == 0);
    CASE("break and stack");
    int local;
    SHOW_IF((uintptr_t)sbrk(0) != 0);
    SHOW_IF((uintptr_t)&local < (uintptr_t)argv);
    return 0;
}
