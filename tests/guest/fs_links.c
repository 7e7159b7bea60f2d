/*
 * Other people's links in directories that everybody may write to (fs.protected_symlinks,
 * fs.protected_hardlinks). Which rules hold is the machine's choice: the program reads that, and in
 * the sandbox sets it as well. USER: root
 */
#include "check.h"

#include <sys/utsname.h>

enum { ALICE = 12345, BOB = 23456 };
static bool strict;

static int setting(const char *name, int value)
{
    char path[64], digit = '?';
    snprintf(path, sizeof path, "/proc/sys/fs/%s", name);
    int fd = MUST(open(path, value < 0 ? O_RDONLY : O_WRONLY));
    if (value < 0) {
        MUST(read(fd, &digit, 1));
    } else {
        digit = (char)('0' + value);
        MUST(write(fd, &digit, 1));
    }
    close(fd);
    return digit - '0';
}

/* What opening `path` as `uid` gives, as an errno. */
static int open_as(uid_t uid, const char *path)
{
    int status;
    pid_t pid = MUST(fork());
    if (pid == 0) {
        MUST(setresuid(uid, uid, uid));
        struct stat st;
        int fd = open(path, O_RDONLY), error = fd < 0 ? errno : 0;
        if ((stat(path, &st) ? errno : 0) != error)
            _exit(99);
        _exit(error);
    }
    MUST(waitpid(pid, &status, 0));
    return WEXITSTATUS(status);
}

static void symlinks(void)
{
    static const uid_t users[] = {0, ALICE, BOB};
    char dir[32], link[64], through[80], beyond[96];
    int wrong = 0, number = 0;
    for (int mode = 0; mode < 4; mode++)
        for (int owner = 0; owner < 3; owner++) {
            snprintf(dir, sizeof dir, "dir%d", number++);
            MUST(mkdir(dir, 0755));
            MUST(chown(dir, users[owner], 0));
            mode_t bits = 0755 | (mode & 1 ? S_ISVTX : 0) | (mode & 2 ? S_IWOTH : 0);
            MUST(chmod(dir, bits));
            for (int maker = 0; maker < 3; maker++) {
                snprintf(link, sizeof link, "%s/link%d", dir, maker);
                MUST(symlink("../file", link));
                MUST(lchown(link, users[maker], 0));
                snprintf(through, sizeof through, "%s/room%d", dir, maker);
                MUST(symlink("../room", through));
                MUST(lchown(through, users[maker], 0));
                snprintf(beyond, sizeof beyond, "%s/file", through);
                for (int who = 0; who < 3; who++) {
                    bool refused = strict && mode == 3 && maker != who && maker != owner;
                    int expected = refused ? EACCES : 0;
                    wrong += open_as(users[who], link) != expected;
                    /* In the middle of a path any link may be followed. */
                    wrong += open_as(users[who], beyond) != 0;
                }
            }
            nftw(dir, scratch_remove_one, 8, FTW_DEPTH | FTW_PHYS);
        }
    say("links: %d not as they should be", wrong);
}

static void hardlinks(bool guarded)
{
    MUST(chmod(".", 0777));
    put_file("mine", "x", 0600);
    put_file("special", "x", 04777);
    put_file("open", "x", 0666);
    reap("linked", CHILD({
             MUST(setresuid(ALICE, ALICE, ALICE));
             int unreadable = link("mine", "l1") ? errno : 0,
                 special = link("special", "l2") ? errno : 0;
             SHOW_IF(unreadable == (guarded ? EPERM : 0));
             SHOW_IF(special == (guarded ? EPERM : 0));
             SHOW(link("open", "l3"));
         }));
    unlink("l1"), unlink("l2"), unlink("l3");
    MUST(chmod(".", 0755));
}

int main(void)
{
    struct utsname name;
    scratch();
    put_file("file", "x", 0644);
    MUST(mkdir("room", 0755));
    put_file("room/file", "x", 0644);
    MUST(uname(&name));
    bool settable = strstr(name.version, "Sentry") != NULL;
    for (int round = 0; round < 2; round++) {
        if (settable) {
            setting("protected_symlinks", round);
            setting("protected_hardlinks", round);
        }
        strict = setting("protected_symlinks", -1) == 1;
        symlinks();
        hardlinks(setting("protected_hardlinks", -1) == 1);
    }
    return 0;
}
