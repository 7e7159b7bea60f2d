/*
 * Who a new file belongs to, and which bits of its mode stay: set-group-ID directories, the umask,
 * strangers. USER: root
 */
#include "check.h"

#include <grp.h>

static void show(const char *path)
{
    struct stat st;
    if (lstat(path, &st)) {
        say("%s: %s", path, error_name(errno));
        return;
    }
    say("%s: mode %o, owner %d:%d", path, st.st_mode, (int)st.st_uid, (int)st.st_gid);
}

static void make_all(const char *dir, mode_t mask)
{
    char name[64];
    umask(mask);
    for (int exec = 0; exec < 2; exec++) {
        mode_t mode = exec ? 06777 : 06767;
        snprintf(name, sizeof name, "%s/open%d", dir, exec);
        close((int)MUST(open(name, O_CREAT | O_EXCL | O_WRONLY, mode)));
        show(name);
        snprintf(name, sizeof name, "%s/node%d", dir, exec);
        MUST(mknod(name, S_IFREG | mode, 0));
        show(name);
        snprintf(name, sizeof name, "%s/fifo%d", dir, exec);
        MUST(mknod(name, S_IFIFO | mode, 0));
        show(name);
        snprintf(name, sizeof name, "%s/dir%d", dir, exec);
        MUST(mkdir(name, mode));
        show(name);
        snprintf(name, sizeof name, "%s/link%d", dir, exec);
        MUST(symlink("target", name));
        show(name);
        int fd = MUST(open(dir, O_TMPFILE | O_RDWR, mode));
        struct stat st;
        MUST(fstat(fd, &st));
        say("nameless: mode %o, owner %d:%d", st.st_mode, (int)st.st_uid, (int)st.st_gid);
        close(fd);
    }
}

static void in_directory(const char *dir, mode_t dir_mode, mode_t mask, gid_t groups, bool drop)
{
    say("-- %s, mode %o, umask %o, %s", dir, dir_mode, mask, drop ? "as a stranger" : "as root");
    MUST(mkdir(dir, 0777));
    MUST(chown(dir, 0, 4321));
    MUST(chmod(dir, dir_mode));
    reap("made", CHILD({
             if (drop) {
                 MUST(setgroups(groups ? 1 : 0, &groups));
                 MUST(setgid(65534));
                 MUST(setuid(65534));
             }
             make_all(dir, mask);
         }));
}

int main(void)
{
    scratch();
    in_directory("a", 02777, 0, 0, true);
    in_directory("b", 02777, 010, 0, true);
    in_directory("c", 02777, 077, 0, true);
    in_directory("d", 02777, 0, 4321, true);
    in_directory("e", 02777, 0, 0, false);
    in_directory("f", 0777, 0, 0, true);
    in_directory("g", 0777, 010, 0, false);
    return 0;
}
