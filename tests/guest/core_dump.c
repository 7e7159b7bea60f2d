/*
 * Core dumps: which ends leave a file and say so to wait, what limits and what else prevents it,
 * and that the file is what core(5) says. NEEDS: /proc/sys/kernel/core_pattern=core
 * /proc/sys/kernel/core_uses_pid=0
 */
#include "check.h"

#include <elf.h>
#include <pthread.h>
#include <sys/prctl.h>

static void limit(rlim_t bytes)
{
    struct rlimit value = {bytes, RLIM_INFINITY};
    MUST(setrlimit(RLIMIT_CORE, &value));
}

static void show_end(const char *what, pid_t pid)
{
    siginfo_t info;
    struct stat st;
    int status;
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    MUST(waitpid(pid, &status, 0));
    const char *code = info.si_code == CLD_DUMPED   ? "dumped"
                       : info.si_code == CLD_KILLED ? "killed"
                                                    : "other";
    bool file = lstat("core", &st) == 0;
    say("%s: signal %s, core %s, code %s, file %s", what, signal_name(WTERMSIG(status)),
        WCOREDUMP(status) ? "yes" : "no", code, file ? "yes" : "no");
    if (file && S_ISREG(st.st_mode))
        say("mode %o, mine %d, links %d", st.st_mode, st.st_uid == geteuid(), (int)st.st_nlink);
}

static void die(int signo)
{
    signal(signo, SIG_DFL);
    kill(getpid(), signo);
    pause();
}

static void signals(void)
{
    static const int all[] = {SIGHUP,  SIGINT,  SIGQUIT,   SIGILL,  SIGTRAP, SIGABRT, SIGBUS,
                              SIGFPE,  SIGKILL, SIGSEGV,   SIGPIPE, SIGALRM, SIGTERM, SIGUSR1,
                              SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO,   SIGPWR,  SIGSYS};
    CASE("signals");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        unlink("core");
        show_end("end", CHILD(die(all[i])));
    }
    unlink("core");
    show_end("a real-time one", CHILD(die(SIGRTMIN + 1)));
    show_end("abort", CHILD(abort()));
    unlink("core");
    show_end("a fault", CHILD(*(volatile int *)BAD = 1));
    unlink("core");
}

static void limits(void)
{
    static const rlim_t sizes[] = {0, 1, 4095, 4096, 8192, 1 << 20};
    CASE("limits");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stat st;
        char what[32];
        snprintf(what, sizeof what, "limit %ld", (long)sizes[i]);
        show_end(what, CHILD(limit(sizes[i]); abort()));
        if (stat("core", &st) == 0)
            SHOW_IF(st.st_size <= (off_t)sizes[i]);
        unlink("core");
    }
}

static void prevented(void)
{
    CASE("prevented");
    show_end("not dumpable", CHILD(MUST(prctl(PR_SET_DUMPABLE, 0)); abort()));
    MUST(symlink("elsewhere", "core"));
    show_end("a link in the way", CHILD(abort()));
    SHOW(access("elsewhere", F_OK));
    MUST(unlink("core"));
    MUST(mkdir("core", 0700));
    show_end("a directory in the way", CHILD(abort()));
    MUST(rmdir("core"));
    put_file("first", "text", 0644);
    MUST(link("first", "core"));
    show_end("a file with two names", CHILD(abort()));
    show_file("first");
    MUST(unlink("core"));
    put_file("core", "what was there before, and is longer than nothing", 0644);
    show_end("an old one", CHILD(abort()));
    MUST(unlink("core"));
    MUST(mkfifo("core", 0600));
    show_end("a FIFO in the way", CHILD(abort()));
    MUST(unlink("core"));
    show_end("in a directory that is gone", CHILD({
                 MUST(mkdir("gone", 0700));
                 MUST(chdir("gone"));
                 MUST(rmdir("../gone"));
                 abort();
             }));
}

/* The program's own memory, to be found in the file. */
static char marker[] = "a marker that stands in the data of this program";

static void contents(void)
{
    CASE("contents");
    pid_t pid = CHILD({
        marker[0] = 'A';
        abort();
    });
    show_end("end", pid);
    int fd = MUST(open("core", O_RDONLY));
    Elf64_Ehdr head;
    NEED(read(fd, &head, sizeof head) == sizeof head);
    SHOW_IF(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_ident[EI_CLASS] == ELFCLASS64);
    SHOW_IF(head.e_type == ET_CORE && head.e_machine == EM_X86_64 &&
            head.e_phentsize == sizeof(Elf64_Phdr));
    bool notes = false, marked = false, status = false;
    char *segment = malloc(64 << 20);
    for (int i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr table;
        NEED(pread(fd, &table, sizeof table, (off_t)(head.e_phoff + i * sizeof table)) ==
             sizeof table);
        if (table.p_type == PT_NOTE) {
            notes = true;
            NEED(pread(fd, segment, table.p_filesz, (off_t)table.p_offset) ==
                 (ssize_t)table.p_filesz);
            Elf64_Nhdr *note = (Elf64_Nhdr *)segment;
            status = note->n_type == NT_PRSTATUS && note->n_descsz == 336 &&
                     !memcmp(note + 1, "CORE", 5) && *(int *)((char *)(note + 1) + 8) == SIGABRT &&
                     *(int *)((char *)(note + 1) + 8 + 32) == pid;
        } else if (table.p_vaddr <= (uintptr_t)marker &&
                   (uintptr_t)marker < table.p_vaddr + table.p_filesz) {
            off_t at = (off_t)(table.p_offset + ((uintptr_t)marker - table.p_vaddr));
            NEED(pread(fd, segment, sizeof marker, at) == sizeof marker);
            marked = segment[0] == 'A' && !strcmp(segment + 1, marker + 1);
        }
    }
    SHOW_IF(notes);
    SHOW_IF(status);
    SHOW_IF(marked);
    free(segment);
    close(fd);
    MUST(unlink("core"));
}

#define PAGE 4096ul

static char *mapped(int prot, int flags, int fd, off_t offset)
{
    char *at = mmap(NULL, 2 * PAGE, prot, flags, fd, offset);
    NEED(at != MAP_FAILED);
    MUST(munmap(at + PAGE, PAGE));
    return at;
}

static int a_file(const char *name, const char *text, mode_t mode)
{
    int fd = MUST(open(name, O_RDWR | O_CREAT, mode));
    MUST(ftruncate(fd, 3 * PAGE));
    MUST(pwrite(fd, text, 4, 0));
    return fd;
}

/* Which mappings are dumped. */
static void filter(void)
{
    static const char *const filters[] = {"0x33", "0", "1", "2", "4", "8", "0x10", "0x1ff", "0x20"};
    enum {
        PRIVATE, SHARED, MEMFD, FILE_SHARED, FILE_READ, FILE_WRITTEN, FILE_BEHIND, ELF, PROGRAM, LEFT_OUT,
    };
    static const char *const names[] = {
        "private", "shared", "memfd", "shared file", "private file", "written to", "not from the start",
        "an ELF file", "an executable", "left out",
    };
    CASE("filter");
    char *at[LEFT_OUT + 1];
    int text = a_file("text", "text", 0600), elf = a_file("elf", ELFMAG, 0600);
    int program = a_file("program", "#!/x", 0700);
    int memfd = MUST(memfd_create("memory", 0));
    MUST(ftruncate(memfd, 2 * PAGE));
    const int rw = PROT_READ | PROT_WRITE;
    at[PRIVATE] = mapped(rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    at[SHARED] = mapped(rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    at[MEMFD] = mapped(rw, MAP_SHARED, memfd, 0);
    at[FILE_SHARED] = mapped(rw, MAP_SHARED, text, 0);
    at[FILE_READ] = mapped(PROT_READ, MAP_PRIVATE, text, 0);
    at[FILE_WRITTEN] = mapped(rw, MAP_PRIVATE, text, 0);
    at[FILE_BEHIND] = mapped(PROT_READ, MAP_PRIVATE, text, PAGE);
    at[ELF] = mapped(PROT_READ, MAP_PRIVATE, elf, 0);
    at[PROGRAM] = mapped(PROT_READ, MAP_PRIVATE, program, 0);
    at[LEFT_OUT] = mapped(rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(madvise(at[LEFT_OUT], PAGE, MADV_DONTDUMP));
    at[PRIVATE][0] = at[SHARED][0] = at[MEMFD][0] = at[FILE_WRITTEN][5] = at[LEFT_OUT][0] = 'x';
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        int fd = MUST(open("/proc/self/coredump_filter", O_WRONLY));
        MUST(write(fd, filters[i], strlen(filters[i])));
        close(fd);
        say("%s", filters[i]);
        show_end("end", CHILD(abort()));
        fd = MUST(open("core", O_RDONLY));
        Elf64_Ehdr head;
        Elf64_Phdr table;
        NEED(read(fd, &head, sizeof head) == sizeof head);
        for (int k = 0; k <= LEFT_OUT; k++)
            for (int j = 0; j < head.e_phnum; j++) {
                off_t place = (off_t)(head.e_phoff + (size_t)j * sizeof table);
                NEED(pread(fd, &table, sizeof table, place) == sizeof table);
                if (table.p_type == PT_LOAD && table.p_vaddr == (uintptr_t)at[k])
                    say("%s: %d pages of %d", names[k], (int)(table.p_filesz / PAGE),
                        (int)(table.p_memsz / PAGE));
            }
        close(fd);
        MUST(unlink("core"));
    }
}

static void *crash(void *arg UNUSED)
{
    abort();
}

static void threads(void)
{
    CASE("threads");
    show_end("another thread", CHILD({
                 pthread_t thread;
                 pthread_create(&thread, NULL, crash, NULL);
                 pause();
             }));
    unlink("core");
    show_end("two at once", CHILD({
                 pthread_t thread;
                 pthread_create(&thread, NULL, crash, NULL);
                 abort();
             }));
    unlink("core");
}

int main(void)
{
    scratch();
    limit(RLIM_INFINITY);
    signals();
    limits();
    limit(RLIM_INFINITY);
    prevented();
    contents();
    threads();
    filter();
    return 0;
}
