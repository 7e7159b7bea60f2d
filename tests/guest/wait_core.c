/*
 * Core dumps: which signals leave one, the bit in the wait status, and what stands in the file.
 *
 * NEEDS: /proc/sys/kernel/core_pattern=core
 */
#include "check.h"

#include <elf.h>
#include <pthread.h>
#include <sys/prctl.h>

static void limit(rlim_t size)
{
    struct rlimit value = {size, RLIM_INFINITY};
    getrlimit(RLIMIT_CORE, &value);
    value.rlim_cur = size < value.rlim_max ? size : value.rlim_max;
    MUST(setrlimit(RLIMIT_CORE, &value));
}

static void die(const char *what, int signo, void (*before)(void))
{
    int status;
    siginfo_t info = {0};
    unlink("core");
    pid_t pid = CHILD(if (before) before(); raise(signo));
    MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
    MUST(waitpid(pid, &status, 0));
    struct stat st;
    bool there = stat("core", &st) == 0;
    say("%s: code %d, bit %d, core %s, mode %o", what, info.si_code, WCOREDUMP(status) != 0,
        there ? "there" : "not there", there ? st.st_mode : 0);
}

static void undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0);
}

static void no_limit(void)
{
    limit(0);
}

static void small(void)
{
    limit(4095);
}

static void not_regular(void)
{
    mkdir("core", 0755);
}

static void ignored(void)
{
    signal(SIGQUIT, SIG_IGN);
}

static void *sleeps(void *arg)
{
    pause();
    return arg;
}

static void threaded(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, sleeps, NULL);
}

static char marker[] = "a marker in the data of the process";

static void contents(void)
{
    CASE("contents");
    unlink("core");
    marker[0] = 'A';
    reap("abort", CHILD(abort()));
    FILE *f = fopen("core", "r");
    NEED(f != NULL);
    Elf64_Ehdr head;
    NEED(fread(&head, sizeof head, 1, f) == 1);
    say("type %d machine %d", head.e_type, head.e_machine);
    SHOW_IF(memcmp(head.e_ident, ELFMAG, SELFMAG) == 0);
    bool found = false, notes = false;
    for (int i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr segment;
        fseek(f, (long)(head.e_phoff + (size_t)i * head.e_phentsize), SEEK_SET);
        NEED(fread(&segment, sizeof segment, 1, f) == 1);
        notes |= segment.p_type == PT_NOTE;
        uint64_t at = (uint64_t)marker - segment.p_vaddr;
        if (segment.p_type == PT_LOAD && at < segment.p_filesz) {
            char text[sizeof marker];
            fseek(f, (long)(segment.p_offset + at), SEEK_SET);
            found = fread(text, sizeof text, 1, f) == 1 && strcmp(text, marker) == 0;
        }
    }
    say("notes %d, marker %d", notes, found);
    fclose(f);
}

int main(void)
{
    scratch();
    limit(RLIM_INFINITY);
    int signals[] = {SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,  SIGFPE, SIGSEGV,
                     SIGXCPU, SIGXFSZ, SIGSYS,  SIGTERM, SIGKILL, SIGUSR1};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        die(signal_name(signals[i]), signals[i], NULL);
    die("not dumpable", SIGQUIT, undumpable);
    die("no limit", SIGQUIT, no_limit);
    die("too small", SIGQUIT, small);
    die("a directory", SIGQUIT, not_regular);
    rmdir("core");
    die("ignored", SIGQUIT, ignored);
    unlink("core");
    contents();
    unlink("core");
    reap("threads", CHILD(threaded(); raise(SIGSEGV)));
    return 0;
}
