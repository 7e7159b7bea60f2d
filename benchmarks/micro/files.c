/* Files in a writable /tmp, and the two devices that everybody reads and writes. */
#define _GNU_SOURCE
#include "micro.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRIES 1000

static int fd = -1;
static char path[512];

static void remember(const char *name)
{
    snprintf(path, sizeof path, "%s", temporary(name));
}

static void close_fd(void)
{
    close(fd);
    fd = -1;
}

static void open_zero(void)
{
    MUST((fd = open("/dev/zero", O_RDONLY)) >= 0);
}

static void op_read_zero(void)
{
    MUST(read(fd, block, 1) == 1);
}

static void open_null(void)
{
    MUST((fd = open("/dev/null", O_WRONLY)) >= 0);
}

static void op_write_null(void)
{
    MUST(write(fd, block, 1) == 1);
}

static void op_dup_close(void)
{
    close(dup(fd));
}

static void open_file(void)
{
    remember("file");
    MUST((fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644)) >= 0);
    MUST(write(fd, block, sizeof block) == sizeof block);
}

static void remove_file(void)
{
    close_fd();
    unlink(path);
}

static void op_lseek(void)
{
    MUST(lseek(fd, 0, SEEK_SET) == 0);
}

static void op_fstat(void)
{
    struct stat st;
    MUST(fstat(fd, &st) == 0);
}

static void op_pread_4k(void)
{
    MUST(pread(fd, block, 4096, 0) == 4096);
}

static void op_pread_64k(void)
{
    MUST(pread(fd, block, 65536, 0) == 65536);
}

static void op_pwrite_4k(void)
{
    MUST(pwrite(fd, block, 4096, 0) == 4096);
}

static void op_open_close(void)
{
    int other = open(path, O_RDONLY);
    MUST(other >= 0);
    close(other);
}

static void op_stat(void)
{
    struct stat st;
    MUST(stat(path, &st) == 0);
}

static void name_nothing(void)
{
    remember("none");
}

static void op_stat_enoent(void)
{
    struct stat st;
    MUST(stat(path, &st) == -1 && errno == ENOENT);
}

static void op_create_unlink(void)
{
    int other = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    MUST(other >= 0);
    close(other);
    MUST(unlink(path) == 0);
}

static void make_directory(void)
{
    char name[640];
    remember("dir");
    MUST(mkdir(path, 0755) == 0);
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof name, "%s/entry-%04d", path, i);
        int other = open(name, O_WRONLY | O_CREAT, 0644);
        MUST(other >= 0);
        close(other);
    }
}

static void remove_directory(void)
{
    char name[640];
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof name, "%s/entry-%04d", path, i);
        unlink(name);
    }
    rmdir(path);
}

static void op_readdir(void)
{
    int seen = 0;
    DIR *directory = opendir(path);
    MUST(directory);
    while (readdir(directory))
        seen++;
    closedir(directory);
    MUST(seen == ENTRIES + 2);
}

const struct operation file_operations[] = {
    {"read_zero_1", op_read_zero, open_zero, close_fd},
    {"write_null_1", op_write_null, open_null, close_fd},
    {"dup_close", op_dup_close, open_null, close_fd},
    {"lseek", op_lseek, open_file, remove_file},
    {"fstat", op_fstat, open_file, remove_file},
    {"pread_4k", op_pread_4k, open_file, remove_file},
    {"pread_64k", op_pread_64k, open_file, remove_file},
    {"pwrite_4k", op_pwrite_4k, open_file, remove_file},
    {"open_close", op_open_close, open_file, remove_file},
    {"stat", op_stat, open_file, remove_file},
    {"stat_enoent", op_stat_enoent, name_nothing, NULL},
    {"create_unlink", op_create_unlink, name_nothing, NULL},
    {"readdir_1000", op_readdir, make_directory, remove_directory},
    {NULL, NULL, NULL, NULL},
};
