/* Symbols of the vDSO (vdso(7)): one page or two of ELF that the host's kernel puts into every process.
 *
 * The Sentry reads its own, which is the same as a stub's.  It is the kernel's and not the guest's, but a
 * mistake here would be a jump to nowhere in every guest, so nothing beyond `size` is believed or read, and what is
 * odd in any way has no symbols at all.
 */
#include "engine.h"

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct image {
    const uint8_t *bytes;
    uint64_t size;
};

struct symbols {
    uint64_t table, names, hash; /* offsets, 0: there is none */
};

/* `size` bytes at `offset`, aligned or not, or false. */
static bool get(const struct image *elf, uint64_t offset, void *to, uint64_t size)
{
    if (size > elf->size || offset > elf->size - size)
        return false;
    memcpy(to, elf->bytes + offset, size);
    return true;
}

static bool is_named(const struct image *elf, uint64_t offset, const char *name)
{
    uint64_t size = strlen(name) + 1;
    return size <= elf->size && offset <= elf->size - size && memcmp(elf->bytes + offset, name, size) == 0;
}

/* Addresses in the dynamic section are relative to the first segment's, which the kernel links at 0 and loads
 * with offset 0: the ELF header. */
static bool read_dynamic(const struct image *elf, const Elf64_Phdr *dynamic, struct symbols *s)
{
    uint64_t i, count = dynamic->p_filesz / sizeof(Elf64_Dyn);
    for (i = 0; i < count && i < 256; i++) {
        Elf64_Dyn entry;
        if (!get(elf, dynamic->p_offset + i * sizeof entry, &entry, sizeof entry) || entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag == DT_SYMTAB)
            s->table = entry.d_un.d_ptr;
        else if (entry.d_tag == DT_STRTAB)
            s->names = entry.d_un.d_ptr;
        else if (entry.d_tag == DT_HASH)
            s->hash = entry.d_un.d_ptr;
    }
    return s->table && s->names;
}

static bool find_symbols(const struct image *elf, struct symbols *s)
{
    Elf64_Ehdr head;
    Elf64_Phdr segment;
    uint32_t i;
    bool at_zero = false, found = false;
    if (!get(elf, 0, &head, sizeof head) || memcmp(head.e_ident, ELFMAG, SELFMAG) ||
        head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64 || head.e_phentsize != sizeof segment)
        return false;
    for (i = 0; i < head.e_phnum; i++) {
        if (!get(elf, head.e_phoff + i * sizeof segment, &segment, sizeof segment))
            return false;
        if (segment.p_type == PT_LOAD && segment.p_offset == 0 && segment.p_vaddr == 0)
            at_zero = true;
        if (segment.p_type == PT_DYNAMIC)
            found = read_dynamic(elf, &segment, s);
    }
    return at_zero && found;
}

/* How many symbols there are.  Without DT_HASH, which newer kernels leave out for DT_GNU_HASH: up to the names, which
 * linkers put behind the symbols. */
static uint64_t count_symbols(const struct image *elf, const struct symbols *s)
{
    uint32_t words[2];
    uint64_t count = 0;
    if (s->hash && get(elf, s->hash, words, sizeof words))
        count = words[1];
    else if (s->names > s->table)
        count = (s->names - s->table) / sizeof(Elf64_Sym);
    return count < 1024 ? count : 1024;
}

uint64_t vdso_function(const void *bytes, uint64_t size, const char *name)
{
    const struct image elf = {bytes, size};
    struct symbols s = {0};
    uint64_t i, count;
    if (!find_symbols(&elf, &s))
        return 0;
    count = count_symbols(&elf, &s);
    for (i = 0; i < count; i++) {
        Elf64_Sym symbol;
        if (!get(&elf, s.table + i * sizeof symbol, &symbol, sizeof symbol))
            return 0;
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != SHN_UNDEF && symbol.st_value &&
            symbol.st_size <= size && symbol.st_value <= size - symbol.st_size && symbol.st_size >= 8 &&
            is_named(&elf, s.names + symbol.st_name, name))
            return symbol.st_value;
    }
    return 0;
}
