/*
 * File handles: name_to_handle_at(2) and open_by_handle_at(2) in a tmpfs, and where there are none.
 * USER: root
 */
#include "check.h"

static struct file_handle *handle;
static int mount_id, room;

static int name(const char *path, int flags)
{
    handle->handle_bytes = MAX_HANDLE_SZ;
    return name_to_handle_at(AT_FDCWD, path, handle, &mount_id, flags);
}

static void show_open(int flags)
{
    errno = 0;
    int fd = open_by_handle_at(room, handle, flags);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        say("flags %o: %s", flags, error_name(errno));
        return;
    }
    char path[64], target[256] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(path, target, sizeof target - 1);
    say("flags %o: mode %o, size %ld, %s", flags, st.st_mode,
        S_ISREG(st.st_mode) ? (long)st.st_size : 0L, size > 0 ? strrchr(target, '/') : "?");
    close(fd);
}

static void naming(void)
{
    CASE("naming");
    handle->handle_bytes = 0;
    SHOW(name_to_handle_at(AT_FDCWD, "file", handle, &mount_id, 0));
    SHOW(handle->handle_bytes);
    handle->handle_bytes = 11;
    mount_id = -1;
    SHOW(name_to_handle_at(AT_FDCWD, "file", handle, &mount_id, 0));
    SHOW_IF(mount_id >= 0);
    SHOW(name("file", 0));
    SHOW(handle->handle_bytes);
    SHOW(handle->handle_type);
    handle->handle_bytes = MAX_HANDLE_SZ + 1;
    SHOW(name_to_handle_at(AT_FDCWD, "file", handle, &mount_id, 0));
    SHOW(name("nosuch", 0));
    SHOW(name("", 0));
    SHOW(name("", AT_EMPTY_PATH));
    SHOW(name("file/x", 0));
    SHOW(name("file", AT_SYMLINK_NOFOLLOW));
    SHOW(name("file", 0x8000));
    SHOW(name(BAD, 0));
    SHOW(name_to_handle_at(AT_FDCWD, "file", BAD, &mount_id, 0));
    SHOW(name_to_handle_at(AT_FDCWD, "file", handle, BAD, 0));
    SHOW(name_to_handle_at(-1, "file", handle, &mount_id, 0));
    SHOW(name_to_handle_at(room, "file", handle, &mount_id, 0));
    SHOW(name_to_handle_at(-1, "", handle, &mount_id, AT_EMPTY_PATH));
    SHOW(name("file", 0x202));
    SHOW(name("file", 0x2));
    SHOW(name("file", 0x200));
    SHOW(name("/proc/self/stat", 0));
    SHOW(name("/dev/pts", 0));
}

static void opening(void)
{
    CASE("opening");
    MUST(name("file", 0));
    show_open(O_RDONLY);
    show_open(O_RDWR);
    show_open(O_WRONLY | O_APPEND);
    show_open(O_PATH);
    show_open(O_DIRECTORY);
    show_open(O_CREAT | O_EXCL | O_RDWR);
    show_open(O_RDWR | O_TRUNC);
    SHOW_OK(open_by_handle_at(AT_FDCWD, handle, O_RDONLY));
    SHOW(open_by_handle_at(-1, handle, O_RDONLY));
    SHOW(open_by_handle_at(room, BAD, O_RDONLY));
    SHOW(open_by_handle_at(-1, BAD, O_RDONLY));
    int proc = MUST(open("/proc", O_RDONLY));
    SHOW(open_by_handle_at(proc, handle, O_RDONLY));
    close(proc);
    unsigned size = handle->handle_bytes;
    handle->handle_bytes = 0;
    show_open(O_RDONLY);
    handle->handle_bytes = MAX_HANDLE_SZ + 1;
    show_open(O_RDONLY);
    handle->handle_bytes = 4;
    show_open(O_RDONLY);
    handle->handle_bytes = size;
    handle->handle_type = 0x100001;
    show_open(O_RDONLY);
    handle->handle_type = 1;
    MUST(rename("file", "renamed"));
    show_open(O_RDONLY);
    MUST(mkdir("dir", 0700));
    MUST(rename("renamed", "dir/moved"));
    show_open(O_RDONLY);
    MUST(rename("dir/moved", "file"));
}

static void kinds(void)
{
    CASE("kinds");
    MUST(name("dir", 0));
    show_open(O_RDONLY);
    show_open(O_RDWR);
    show_open(O_RDONLY | O_DIRECTORY);
    MUST(symlink("file", "link"));
    MUST(name("link", 0));
    show_open(O_RDONLY);
    show_open(O_PATH);
    show_open(O_PATH | O_NOFOLLOW);
    MUST(name("link", AT_SYMLINK_FOLLOW));
    show_open(O_RDONLY);
    MUST(mkfifo("fifo", 0600));
    MUST(name("fifo", 0));
    show_open(O_RDONLY | O_NONBLOCK);
    show_open(O_WRONLY | O_NONBLOCK);
}

static void gone(void)
{
    CASE("gone");
    put_file("short", "x", 0600);
    MUST(name("short", 0));
    MUST(unlink("short"));
    show_open(O_RDONLY);
    MUST(mkdir("lived", 0700));
    MUST(name("lived", 0));
    MUST(rmdir("lived"));
    show_open(O_RDONLY);
    handle->f_handle[4] ^= 0x55;
    show_open(O_RDONLY);
}

static void strangers(void)
{
    CASE("without the capability");
    MUST(chmod(".", 0755));
    MUST(name("file", 0));
    reap("stranger", CHILD({
             MUST(setuid(65534));
             show_open(O_RDONLY);
             SHOW(open_by_handle_at(room, BAD, O_RDONLY));
             handle->handle_bytes = 0;
             show_open(O_RDONLY);
             SHOW(name("file", 0));
         }));
}

int main(void)
{
    char place[] = "/dev/shm/guest.XXXXXX";
    NEED(mkdtemp(place) != NULL);
    MUST(chdir(place));
    room = MUST(open(".", O_RDONLY | O_DIRECTORY));
    NEED((handle = calloc(1, sizeof *handle + 2 * MAX_HANDLE_SZ)) != NULL);
    put_file("file", "contents", 0600);
    naming();
    opening();
    kinds();
    gone();
    strangers();
    MUST(chdir("/"));
    nftw(place, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
