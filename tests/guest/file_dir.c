/* Reading directories: every entry once, types, seeking, changes in between, link counts. */
#include "check.h"

#include <dirent.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path)
{
    char *names[600], line[8192] = "";
    int count = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        say("%s: %s", path, error_name(errno));
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));) {
        char text[300];
        static const char types[] = "?pc?d?b?-?l?s???";
        snprintf(text, sizeof text, "%s%c", entry->d_name, types[entry->d_type & 15]);
        names[count++] = strdup(text);
    }
    closedir(dir);
    qsort(names, count, sizeof *names, compare);
    for (int i = 0; i < count && i < 20; i++)
        sprintf(line + strlen(line), " %s", names[i]);
    say("%s: %d:%s", path, count, line);
    for (int i = 0; i < count; i++)
        free(names[i]);
}

static int links(const char *path)
{
    struct stat st;
    MUST(stat(path, &st));
    return (int)st.st_nlink;
}

int main(void)
{
    char name[300];
    scratch();
    CASE("types");
    MUST(mkdir("d", 0755));
    list("d");
    put_file("d/file", "", 0644);
    MUST(mkdir("d/sub", 0755));
    MUST(symlink("x", "d/link"));
    MUST(mkfifo("d/fifo", 0644));
    list("d");
    list("d/file");
    list("absent");
    CASE("inode numbers");
    DIR *dir = opendir("d");
    struct stat st;
    int same = 0, all = 0;
    for (struct dirent *entry; (entry = readdir(dir)); all++) {
        snprintf(name, sizeof name, "d/%s", entry->d_name);
        MUST(lstat(name, &st));
        same += entry->d_ino == st.st_ino;
    }
    say("%d of %d", same, all);
    CASE("rewind and seek");
    rewinddir(dir);
    long place = -1;
    char second[256] = "", after[256] = "";
    readdir(dir);
    place = telldir(dir);
    strcpy(second, readdir(dir)->d_name);
    readdir(dir);
    seekdir(dir, place);
    strcpy(after, readdir(dir)->d_name);
    SHOW_IF(strcmp(second, after) == 0);
    closedir(dir);
    CASE("many");
    MUST(mkdir("many", 0755));
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "many/entry-with-a-longer-name-%03d", i);
        put_file(name, "", 0644);
    }
    dir = opendir("many");
    bool seen[500] = {0};
    int twice = 0, missing = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] == 'e') {
            int number = atoi(entry->d_name + 25);
            number = atoi(strrchr(entry->d_name, '-') + 1);
            twice += seen[number];
            seen[number] = true;
        }
    for (int i = 0; i < 500; i++)
        missing += !seen[i];
    say("twice %d missing %d", twice, missing);
    CASE("removing while reading");
    rewinddir(dir);
    int removed = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] == 'e') {
            snprintf(name, sizeof name, "many/%s", entry->d_name);
            removed += unlink(name) == 0;
        }
    closedir(dir);
    say("removed %d", removed);
    SHOW(rmdir("many"));
    CASE("the raw call");
    char buffer[4096];
    int fd = MUST(open("d", O_RDONLY));
    SHOW(syscall(SYS_getdents64, fd, buffer, 20));
    SHOW_IF(syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 100);
    SHOW(syscall(SYS_getdents64, fd, buffer, sizeof buffer));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(syscall(SYS_getdents64, fd, BAD, 4096));
    SHOW_IF(syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 100);
    struct dirent64 {
        uint64_t ino;
        int64_t off;
        unsigned short reclen;
        unsigned char type;
        char name[];
    } *entry = (void *)buffer;
    SHOW_IF(entry->reclen % 8 == 0 && entry->reclen >= 24);
    int file = MUST(open("d/file", O_RDONLY));
    SHOW(syscall(SYS_getdents64, file, buffer, sizeof buffer));
    SHOW(syscall(SYS_getdents64, 99, buffer, sizeof buffer));
    CASE("a directory that is removed while open");
    MUST(mkdir("gone", 0755));
    int gone = MUST(open("gone", O_RDONLY));
    MUST(rmdir("gone"));
    SHOW(syscall(SYS_getdents64, gone, buffer, sizeof buffer));
    SHOW(openat(gone, "x", O_RDWR | O_CREAT, 0644));
    SHOW(fstat(gone, &st));
    CASE("system directories");
    SHOW_IF(opendir("/") != NULL);
    SHOW_IF(opendir("/proc/self/fd") != NULL);
    SHOW_IF(opendir("/dev") != NULL);
    SHOW_IF(links("/proc") > 2);
    return 0;
}
