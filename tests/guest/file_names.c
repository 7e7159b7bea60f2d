/* Names: link, symlink, rename, unlink, mkdir, rmdir, readlink, getcwd, and the errors of each. */
#include "check.h"

#include <linux/fs.h>

static ino_t inode(const char *path)
{
    struct stat st;
    return lstat(path, &st) == -1 ? 0 : st.st_ino;
}

static int links(const char *path)
{
    struct stat st;
    return lstat(path, &st) == -1 ? -1 : (int)st.st_nlink;
}

static int exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static void reset(void)
{
    put_file("a", "file a", 0644);
    put_file("b", "file b", 0644);
    mkdir("dir", 0755);
    mkdir("empty", 0755);
    put_file("dir/inside", "inside", 0644);
}

int main(void)
{
    char text[64] = "", cwd[256];
    scratch();
    reset();
    CASE("link");
    SHOW(link("a", "hard"));
    SHOW_IF(inode("a") == inode("hard"));
    SHOW(links("a"));
    SHOW(link("a", "b"));
    SHOW(link("absent", "x"));
    SHOW(link("dir", "x"));
    SHOW(link("a", "absent/x"));
    SHOW(link("a", "new/"));
    SHOW(unlink("a"));
    SHOW(links("hard"));
    show_file("hard");
    MUST(symlink("hard", "soft"));
    SHOW(link("soft", "soft2"));
    SHOW_IF(inode("soft") == inode("soft2"));
    SHOW(linkat(AT_FDCWD, "soft", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    SHOW_IF(inode("followed") == inode("hard"));
    SHOW(linkat(AT_FDCWD, "soft", AT_FDCWD, "x", 0x8));
    CASE("symlink and readlink");
    SHOW(symlink("anything at all", "any"));
    SHOW(readlink("any", text, sizeof text));
    say("%s", text);
    SHOW(readlink("any", text, 5));
    SHOW(readlink("any", text, 0));
    SHOW(readlink("b", text, sizeof text));
    SHOW(readlink("absent", text, sizeof text));
    SHOW(readlink("any", BAD, 10));
    SHOW(symlink("x", "any"));
    SHOW(symlink("", "empty-target"));
    SHOW(symlink("x", "absent/y"));
    SHOW(symlink("x", "dir/"));
    struct stat st;
    MUST(lstat("any", &st));
    say("mode %o size %ld", st.st_mode, (long)st.st_size);
    SHOW(stat("any", &st));
    CASE("rename");
    reset();
    SHOW(rename("a", "c"));
    say("%d %d", exists("a"), exists("c"));
    SHOW(rename("c", "b"));
    show_file("b");
    SHOW(rename("b", "b"));
    SHOW(rename("absent", "x"));
    SHOW(rename("b", "dir"));
    SHOW(rename("dir", "b"));
    SHOW(rename("empty", "dir"));
    SHOW(rename("dir", "empty"));
    say("%d %d %d", exists("dir"), exists("empty/inside"), exists("empty"));
    SHOW(rename("empty", "empty/below"));
    SHOW(rename("b", "empty/inside/x"));
    SHOW(rename("b", "absent/x"));
    SHOW(rename(".", "x"));
    SHOW(rename("empty", "."));
    SHOW(rename("empty/..", "x"));
    SHOW(rename("b", "x/"));
    SHOW(rename("empty", "moved/"));
    SHOW(rename("moved", "empty"));
    reset();
    MUST(link("a", "same"));
    SHOW(rename("a", "same"));
    say("both stay: %d %d", exists("a"), exists("same"));
    CASE("renameat2");
    SHOW(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
    SHOW(renameat2(AT_FDCWD, "a", AT_FDCWD, "fresh", RENAME_NOREPLACE));
    ino_t fresh = inode("fresh"), dir = inode("dir");
    SHOW(renameat2(AT_FDCWD, "fresh", AT_FDCWD, "dir", RENAME_EXCHANGE));
    SHOW_IF(inode("fresh") == dir && inode("dir") == fresh);
    SHOW(renameat2(AT_FDCWD, "fresh", AT_FDCWD, "absent", RENAME_EXCHANGE));
    SHOW(renameat2(AT_FDCWD, "fresh", AT_FDCWD, "x", RENAME_EXCHANGE | RENAME_NOREPLACE));
    SHOW(renameat2(AT_FDCWD, "fresh", AT_FDCWD, "x", 0x80));
    MUST(rename("dir", "was-fresh"));
    MUST(rename("fresh", "dir"));
    CASE("mkdir and rmdir");
    SHOW(mkdir("made", 0777));
    MUST(stat("made", &st));
    say("mode %o", st.st_mode);
    SHOW(mkdir("made", 0777));
    SHOW(mkdir("absent/x", 0777));
    SHOW(mkdir("b/x", 0777));
    SHOW(mkdir("slashed///", 0700));
    SHOW(mkdir("", 0700));
    SHOW(mkdir("/", 0700));
    SHOW(mkdir(".", 0700));
    SHOW(mkdir("any", 0700));
    SHOW(rmdir("made"));
    SHOW(rmdir("made"));
    SHOW(rmdir("dir"));
    SHOW(rmdir("b"));
    SHOW(rmdir("."));
    SHOW(rmdir("dir/.."));
    SHOW(rmdir("any"));
    SHOW(rmdir("slashed/"));
    CASE("unlink");
    SHOW(unlink("dir"));
    SHOW(unlink("absent"));
    SHOW(unlink("b/"));
    SHOW(unlink("any"));
    SHOW(unlink("dir/inside/x"));
    SHOW(unlink(""));
    SHOW(unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
    SHOW(unlinkat(AT_FDCWD, "b", AT_REMOVEDIR));
    SHOW(unlinkat(AT_FDCWD, "b", 0x1));
    CASE("loops and depth");
    for (int i = 0; i < 45; i++) {
        char name[32], target[32];
        snprintf(name, sizeof name, "chain%d", i);
        snprintf(target, sizeof target, "chain%d", i + 1);
        MUST(symlink(target, name));
    }
    put_file("chain45", "end", 0644);
    SHOW(access("chain5", F_OK));
    SHOW(access("chain4", F_OK));
    SHOW(access("chain0", F_OK));
    CASE("dots and slashes");
    reset();
    SHOW(access("dir//./../dir/inside", F_OK));
    SHOW(access("dir/inside/..", F_OK));
    SHOW(access("dir/inside/.", F_OK));
    SHOW(access("absent/..", F_OK));
    SHOW(access("/../../..", F_OK));
    SHOW(access("dir/", F_OK));
    SHOW(access("b/", F_OK));
    CASE("the working directory");
    MUST(mkdir("here", 0755));
    MUST(mkdir("here/sub", 0755));
    SHOW(chdir("here/sub"));
    say("%s", getcwd(cwd, sizeof cwd) + strlen(scratch_path));
    char old[128], new[128];
    snprintf(old, sizeof old, "%s/here", scratch_path);
    snprintf(new, sizeof new, "%s/there", scratch_path);
    SHOW(rename(old, new));
    say("%s", getcwd(cwd, sizeof cwd) + strlen(scratch_path));
    SHOW_IF(getcwd(cwd, 3) == NULL && errno == ERANGE);
    SHOW(chdir(".."));
    SHOW(chdir("sub/absent"));
    SHOW(chdir("sub"));
    snprintf(new, sizeof new, "%s/there/sub", scratch_path);
    SHOW(rmdir(new));
    SHOW_IF(getcwd(cwd, sizeof cwd) == NULL && errno == ENOENT);
    SHOW(open("x", O_RDWR | O_CREAT, 0644));
    SHOW(mkdir("x", 0755));
    SHOW(access(".", F_OK));
    SHOW(access("..", F_OK));
    SHOW(chdir(scratch_path));
    SHOW(chdir("b"));
    SHOW(chdir(""));
    int fd = MUST(open("dir", O_RDONLY));
    SHOW(fchdir(fd));
    SHOW(access("inside", F_OK));
    SHOW(fchdir(0));
    SHOW(fchdir(99));
    return 0;
}
