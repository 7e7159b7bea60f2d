/* What the programs on namespaces share. */
#include "check.h"

UNUSED static void put(const char *path, const char *text)
{
    int fd = MUST(open(path, O_WRONLY));
    NEED(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* A user and a mount namespace in which the caller is root. */
UNUSED static void enter(void)
{
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof uid_map, "0 %u 1\n", geteuid());
    snprintf(gid_map, sizeof gid_map, "0 %u 1\n", getegid());
    MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS));
    put("/proc/self/uid_map", uid_map);
    put("/proc/self/setgroups", "deny");
    put("/proc/self/gid_map", gid_map);
}
