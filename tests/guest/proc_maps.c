/* /proc/PID/{maps,smaps,statm,stat,pagemap,clear_refs,numa_maps,mem}: what they say of mappings made for it. */
#include "mm_common.h"

static char *map(size_t pages, int prot, int flags, int fd)
{
    char *at = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    NEED(at != MAP_FAILED);
    return at;
}

/* A piece of the address space with a gap on either side, for mappings that are to stand alone. */
static char *alone(size_t pages, int prot, int flags, int fd)
{
    char *at = map(pages + 2, PROT_NONE, ANON, -1);
    NEED(mmap(at + PAGE, pages * PAGE, prot, flags | MAP_FIXED, fd, 0) == at + PAGE);
    return at + PAGE;
}

/* The line of /proc/self/maps about `at`: size, rights, offset, name without directories. */
static void show_line(const char *what, const void *at)
{
    char line[512];
    FILE *file = fopen("/proc/self/maps", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end, offset;
        char rights[8], device[16], name[256] = "";
        unsigned long inode;
        sscanf(line, "%lx-%lx %7s %lx %15s %lu %255[^\n]", &start, &end, rights, &offset, device, &inode, name);
        if ((unsigned long)at < start || (unsigned long)at >= end)
            continue;
        char *slash = strrchr(name, '/');
        say("%s: %lu pages, %+ld, %s, offset %lx, %s, '%s'", what, (end - start) / PAGE,
            (long)((unsigned long)at - start) / (long)PAGE, rights, offset, inode ? "inode" : "no inode",
            slash && strncmp(name, "/memfd", 6) && strncmp(name, "/dev/zero", 9) ? slash + 1 : name);
        fclose(file);
        return;
    }
    fclose(file);
    say("%s: not mapped", what);
}

static void lines(void)
{
    CASE("maps");
    int fd = MUST(open("file", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 8 * PAGE));
    char *at = alone(6, RW, ANON, -1);
    show_line("anonymous", at);
    MUST(mprotect(at + 2 * PAGE, PAGE, PROT_READ));
    show_line("before", at);
    show_line("middle", at + 2 * PAGE);
    show_line("behind", at + 3 * PAGE);
    MUST(mprotect(at + 2 * PAGE, PAGE, RW));
    show_line("one again", at + 4 * PAGE);
    at = alone(4, PROT_READ, MAP_SHARED, fd);
    show_line("shared", at + PAGE);
    MUST(munmap(at, PAGE));
    show_line("less its first page", at + PAGE);
    show_line("private", alone(4, RW, MAP_PRIVATE, fd));
    show_line("shared anonymous", alone(2, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    show_line("memfd", alone(1, RW, MAP_SHARED, MUST(memfd_create("a name", 0))));
    MUST(unlink("file"));
    show_line("deleted", at + PAGE);
    show_line("no rights", alone(3, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1));
    show_line("to execute", alone(3, PROT_READ | PROT_EXEC, ANON, -1));
}

static void show_flags(const char *what, const void *at)
{
    char line[512], start[32];
    bool here = false;
    snprintf(start, sizeof start, "%08lx-", (unsigned long)at);
    FILE *file = fopen("/proc/self/smaps", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file)) {
        here |= strncmp(line, start, strlen(start)) == 0;
        if (!here || strncmp(line, "VmFlags:", 8) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        char *soft_dirty = strstr(line, " sd"); /* a matter of configuration */
        say("%s:%.*s", what, soft_dirty ? (int)(soft_dirty - line - 8) : 99, line + 8);
        break;
    }
    fclose(file);
}

static void flags(void)
{
    CASE("VmFlags");
    int fd = MUST(open("flags", O_RDWR | O_CREAT, 0600));
    int reader = MUST(open("flags", O_RDONLY));
    MUST(ftruncate(fd, PAGE));
    show_flags("anonymous", alone(1, RW, ANON, -1));
    show_flags("to read", alone(1, PROT_READ, ANON, -1));
    show_flags("nothing", alone(1, PROT_NONE, ANON, -1));
    show_flags("shared", alone(1, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    show_flags("a file, shared", alone(1, RW, MAP_SHARED, fd));
    show_flags("to read only", alone(1, PROT_READ, MAP_SHARED, fd));
    show_flags("opened to read only", alone(1, PROT_READ, MAP_SHARED, reader));
    show_flags("private", alone(1, RW, MAP_PRIVATE, reader));
    show_flags("private, to execute", alone(1, PROT_READ | PROT_EXEC, MAP_PRIVATE, reader));
    show_flags("not reserved", alone(1, RW, ANON | MAP_NORESERVE, -1));
    show_flags("a stack", alone(1, RW, ANON | MAP_GROWSDOWN, -1));
}

/* How much of a mapping is shared with others. */
static void show_amounts(const char *what, const void *at)
{
    char line[512], start[32], name[32];
    long amounts[5] = {0}, value;
    bool here = false;
    snprintf(start, sizeof start, "%08lx-", (unsigned long)at);
    FILE *file = fopen("/proc/self/smaps", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file) && !(here && strncmp(line, "VmFlags:", 8) == 0)) {
        here |= strncmp(line, start, strlen(start)) == 0;
        if (!here || sscanf(line, "%31[^:]: %ld kB", name, &value) != 2)
            continue;
        if (strcmp(name, "Rss") == 0 || strcmp(name, "Pss") == 0)
            amounts[name[0] == 'P'] = value;
        else if (strncmp(name, "Shared_", 7) == 0 || strncmp(name, "Private_", 8) == 0)
            amounts[name[0] == 'P' ? 3 : 2] += value;
        else if (strcmp(name, "Anonymous") == 0)
            amounts[4] = value;
    }
    fclose(file);
    say("%s: rss %ld, pss %ld, shared %ld, private %ld, anonymous %ld", what, amounts[0], amounts[1],
        amounts[2], amounts[3], amounts[4]);
}

static void sharing(void)
{
    CASE("what is shared");
    int fd = MUST(open("shared", O_RDWR | O_CREAT, 0600)), reader = MUST(open("shared", O_RDONLY));
    MUST(ftruncate(fd, 2 * PAGE));
    MUST(pwrite(fd, "x", 1, PAGE));
    char *at[3] = {alone(2, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1), alone(2, RW, ANON, -1),
                   alone(2, PROT_READ, MAP_SHARED | MAP_POPULATE, reader)};
    memset(at[0], 1, 2 * PAGE);
    memset(at[1], 1, 2 * PAGE);
    for (int i = 0; i < 3; i++)
        show_amounts("mine", at[i]);
    struct gate there = gate_make(), done = gate_make();
    pid_t pid = CHILD({
        for (int i = 0; i < 3; i += 2)
            for (int page = 0; page < 2; page++)
                (void)((volatile char *)at[i])[page * PAGE];
        gate_open(there);
        gate_wait(done);
    });
    gate_wait(there);
    show_amounts("a child's, too", at[0]);
    show_amounts("a child's, too", at[2]);
    gate_open(done);
    reap("child", pid);
    show_amounts("mine again", at[0]);
    show_amounts("mine again", at[2]);
    MUST(munmap(at[0], 2 * PAGE));
    close(fd);
    close(reader);
}

static void special(void)
{
    CASE("what every program has");
    int local;
    char *heap = malloc(1000);
    char line[512], last[64] = "";
    bool stack = false, found_heap = false, vdso = false, vvar = false, ordered = true;
    unsigned long before = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, file)) {
        unsigned long start, end;
        sscanf(line, "%lx-%lx", &start, &end);
        ordered &= start >= before && end > start;
        before = end;
        if (strstr(line, "[stack]"))
            stack = (unsigned long)&local >= start && (unsigned long)&local < end;
        if (strstr(line, "[heap]"))
            found_heap |= (unsigned long)heap >= start && (unsigned long)heap < end;
        vdso |= strstr(line, "[vdso]") && strstr(line, "r-xp");
        vvar |= strstr(line, "[vvar]") && strstr(line, "r--p");
        strncpy(last, strrchr(line, ' ') + 1, sizeof last - 1);
    }
    fclose(file);
    say("stack %d heap %d vdso %d vvar %d in order %d", stack, found_heap, vdso, vvar, ordered);
    free(heap);
}

static void numbers(void)
{
    CASE("statm and stat");
    unsigned long size, rss, shared, text, lib, data, dirty, size2;
    char *at = map(512, RW, ANON, -1);
    memset(at, 1, 512 * PAGE);
    FILE *file = fopen("/proc/self/statm", "r");
    NEED(fscanf(file, "%lu %lu %lu %lu %lu %lu %lu", &size, &rss, &shared, &text, &lib, &data, &dirty) == 7);
    fclose(file);
    say("size over rss %d, rss over 512 %d, shared less %d, text %d, lib %lu, data %d, dt %lu", size > rss,
        rss > 512 && rss < 4096, shared < rss, text > 0 && text < 100, lib, data >= 512 && data < size, dirty);
    char line[1024], *field;
    file = fopen("/proc/self/stat", "r");
    NEED(fgets(line, sizeof line, file) != NULL);
    fclose(file);
    field = strrchr(line, ')');
    unsigned long value[50] = {0};
    int count = 2;
    for (field = strtok(field + 2, " "); field && count < 50; field = strtok(NULL, " "))
        value[++count] = strtoul(field, NULL, 10);
    file = fopen("/proc/self/statm", "r");
    NEED(fscanf(file, "%lu", &size2) == 1);
    fclose(file);
    say("vsize %d rss %d rsslim %d code %d stack %d brk %d args %d env %d", value[23] / PAGE >= size2 - 64,
        value[24] > 512, value[25] > 0, value[26] < value[27], value[28] > value[27], value[47] > value[46],
        value[48] <= value[49], count >= 49);
}

static void pagemap(void)
{
    CASE("pagemap");
    char *at = alone(4, RW, ANON, -1);
    at[0] = at[2 * PAGE] = 1;
    uint64_t entries[8];
    int fd = MUST(open("/proc/self/pagemap", O_RDONLY));
    SHOW(pread(fd, entries, 32, (uintptr_t)at / PAGE * 8));
    for (int i = 0; i < 4; i++)
        say("page %d: present %d swapped %d", i, (int)(entries[i] >> 63), (int)(entries[i] >> 62 & 1));
    SHOW(pread(fd, entries, 8, 4));
    SHOW(pread(fd, entries, 7, 8));
    SHOW(pread(fd, entries, 8, 1l << 55));
    SHOW_IF(lseek(fd, (uintptr_t)at / PAGE * 8, SEEK_SET) > 0);
    SHOW(read(fd, entries, 16));
    say("%d %d", (int)(entries[0] >> 63), (int)(entries[1] >> 63));
    SHOW(pread(fd, entries, 8, 0));
    say("nothing at 0: %d", entries[0] == 0);
    MUST(close(fd));
}

static void clearing(void)
{
    CASE("clear_refs");
    int fd = MUST(open("/proc/self/clear_refs", O_WRONLY));
    SHOW(write(fd, "1\n", 2));
    SHOW(write(fd, "5", 1));
    SHOW(write(fd, "0", 1));
    SHOW(write(fd, "6", 1));
    SHOW(write(fd, "x", 1));
    MUST(close(fd));
    if (geteuid() == 0)
        return;
    SHOW_OK(open("/proc/self/clear_refs", O_RDONLY));
}

static void memory(void)
{
    CASE("mem");
    char *at = alone(2, RW, ANON, -1), text[16] = "";
    strcpy(at, "some text");
    int fd = MUST(open("/proc/self/mem", O_RDWR));
    SHOW(pread(fd, text, 10, (off_t)at));
    say("'%s'", text);
    SHOW(pwrite(fd, "other", 6, (off_t)at));
    say("'%s'", at);
    SHOW(pread(fd, text, 10, (off_t)(at + 2 * PAGE + PAGE)));
    SHOW(pread(fd, text, 10, 0));
    MUST(close(fd));
}

static void links(void)
{
    CASE("map_files");
    int fd = MUST(open("linked", O_RDWR | O_CREAT, 0600));
    MUST(ftruncate(fd, 2 * PAGE));
    char *at = alone(2, RW, MAP_SHARED, fd), name[64], text[256] = "";
    snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (long)at, (long)at + 2 * PAGE);
    SHOW_IF(readlink(name, text, sizeof text) > 0);
    say("%s", strrchr(text, '/') ? strrchr(text, '/') + 1 : text);
    struct stat st;
    MUST(lstat(name, &st));
    say("mode %o size %ld", st.st_mode, (long)st.st_size);
    MUST(munmap(at + PAGE, PAGE));
    SHOW(readlink(name, text, sizeof text));
    SHOW(readlink("/proc/self/map_files/1000-2000", text, sizeof text));
    SHOW(readlink("/proc/self/map_files/nonsense", text, sizeof text));
    snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (long)at, (long)at + PAGE);
    int through = open(name, O_RDONLY);
    if (geteuid() == 0)
        SHOW_IF(through >= 0);
    else
        say("open: %s", error_name(errno));
    at = alone(1, RW, ANON, -1);
    snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (long)at, (long)at + PAGE);
    SHOW(readlink(name, text, sizeof text));
}

static void numa(void)
{
    CASE("numa_maps");
    char line[512], start[32];
    char *at = alone(4, RW, ANON, -1);
    memset(at, 1, 3 * PAGE);
    snprintf(start, sizeof start, "%08lx ", (unsigned long)at);
    FILE *file = fopen("/proc/self/numa_maps", "r");
    if (!file) {
        say("none");
        return;
    }
    while (fgets(line, sizeof line, file))
        if (strncmp(line, start, strlen(start)) == 0)
            say("%s%s%s", strstr(line, " default ") ? "default" : "other", strstr(line, " anon=3") ? " anon=3" : "",
                strstr(line, " N0=3") ? " N0=3" : "");
    fclose(file);
}

/* The rest of a file in reads of `size` bytes: how many of its lines begin within [start, end). */
static int count_lines(int fd, size_t size, const char *start, const char *end)
{
    static char text[4 << 20];
    size_t length = 0;
    ssize_t got;
    int count = 0;
    while ((got = MUST(read(fd, text + length, size))) > 0)
        length += (size_t)got;
    text[length] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL) {
        unsigned long first, last;
        if (sscanf(line, "%lx-%lx ", &first, &last) == 2 && first >= (unsigned long)start && first < (unsigned long)end)
            count++;
    }
    return count;
}

/* Files of the address space are shown a page at a time, and each as it is at that moment. */
static void pieces(void)
{
    CASE("pieces");
    enum { COUNT = 400 };
    static const char *const names[] = { "/proc/self/maps", "/proc/self/smaps" };
    static char buffer[1 << 16], again[1 << 16];
    char *at = alone(2 * COUNT, PROT_NONE, ANON, -1), *end = at + 2 * COUNT * PAGE;
    for (size_t i = 0; i < COUNT; i++)
        MUST(mprotect(at + 2 * i * PAGE, PAGE, PROT_READ));
    for (int i = 0; i < 2; i++) {
        int fd = MUST(open(names[i], O_RDONLY));
        ssize_t got = MUST(read(fd, buffer, sizeof buffer));
        say("%s: %s, whole lines: %d", names[i], got <= (ssize_t)PAGE ? "a page at most" : "more",
            buffer[got - 1] == '\n');
        say("pread: %d", pread(fd, again, 1000, 100) == 1000 && memcmp(again, buffer + 100, 1000) == 0);
        say("far behind the end: %zd", pread(fd, again, 1000, 1 << 30));
        MUST(lseek(fd, 0, SEEK_SET));
        say("all: %d", count_lines(fd, sizeof buffer, at, end));
        MUST(lseek(fd, 0, SEEK_SET));
        say("by small reads: %d", count_lines(fd, 100, at, end));
        MUST(lseek(fd, 0, SEEK_SET));
        MUST(read(fd, buffer, 1));
        MUST(mprotect(at + COUNT * PAGE, COUNT * PAGE, PROT_NONE));
        say("half of them changed: %d", count_lines(fd, sizeof buffer, at, end));
        for (size_t j = COUNT / 2; j < COUNT; j++)
            MUST(mprotect(at + 2 * j * PAGE, PAGE, PROT_READ));
        close(fd);
    }
}

/* What is asked of each page would take minutes here. */
static void vast(void)
{
    CASE("vast");
    static const char *const names[] = { "/proc/self/smaps", "/proc/self/smaps_rollup", "/proc/self/numa_maps" };
    size_t size = 16ul << 40;
    char *at = mmap(NULL, size, RW, ANON | MAP_NORESERVE, -1, 0);
    NEED(at != MAP_FAILED);
    for (int i = 0; i < 3; i++) {
        char buffer[8192];
        ssize_t got = 0, piece;
        int fd = open(names[i], O_RDONLY);
        if (fd < 0) {
            say("%s: none", names[i]);
            continue;
        }
        while ((piece = MUST(read(fd, buffer, sizeof buffer))) > 0)
            got += piece;
        say("%s: %d", names[i], got > 0);
        close(fd);
    }
    MUST(munmap(at, size));
}

int main(void)
{
    scratch();
    pieces();
    vast();
    lines();
    flags();
    sharing();
    special();
    numbers();
    pagemap();
    clearing();
    memory();
    numa();
    links();
    return 0;
}
