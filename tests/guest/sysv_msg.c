/* System V message queues: msgget, msgsnd, msgrcv, msgctl. */
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

struct text {
    long type;
    char data[9000];
};

static struct text out, in;

static int put(int id, long type, const char *data, int flags)
{
    out.type = type;
    strcpy(out.data, data);
    return msgsnd(id, &out, strlen(data), flags);
}

static void take(const char *what, int id, size_t size, long type, int flags)
{
    memset(&in, 0, sizeof in);
    ssize_t got = msgrcv(id, &in, size, type, flags);
    if (got == -1)
        say("%s: %s", what, error_name(errno));
    else
        say("%s: %zd bytes of type %ld: %.20s", what, got, in.type, in.data);
}

static void stat_line(const char *what, int id)
{
    struct msqid_ds ds;
    if (msgctl(id, IPC_STAT, &ds) == -1) {
        say("%s: %s", what, error_name(errno));
        return;
    }
    say("%s: qnum %lu cbytes %lu qbytes %lu lspid %s lrpid %s stime %d rtime %d ctime %d mode %o", what, ds.msg_qnum,
        ds.__msg_cbytes, ds.msg_qbytes, ds.msg_lspid == getpid() ? "me" : ds.msg_lspid ? "other" : "none",
        ds.msg_lrpid == getpid() ? "me" : ds.msg_lrpid ? "other" : "none", ds.msg_stime != 0, ds.msg_rtime != 0,
        ds.msg_ctime != 0, ds.msg_perm.mode);
}

static void getting(void)
{
    CASE("msgget");
    key_t key = 0x5c000000 | (getpid() & 0xfffff) << 4;
    SHOW(msgget(key, 0600));
    int id = MUST(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    SHOW(msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    SHOW_IF(msgget(key, 0600) == id);
    SHOW_IF(msgget(key, 0) == id);
    stat_line("fresh", id);
    SHOW(msgctl(id, IPC_RMID, NULL));
    SHOW(msgctl(id, IPC_RMID, NULL));
    SHOW(msgget(key, 0600));
    SHOW(put(id, 1, "x", 0));
}

static void order(void)
{
    CASE("types");
    int id = MUST(msgget(IPC_PRIVATE, 0600));
    SHOW(put(id, 3, "three", 0));
    SHOW(put(id, 1, "one", 0));
    SHOW(put(id, 2, "two", 0));
    SHOW(put(id, 1, "one again", 0));
    SHOW(put(id, 5, "", 0));
    stat_line("five", id);
    take("by number", id, 100, 2, MSG_COPY | IPC_NOWAIT);
    take("by number", id, 2, 2, MSG_COPY | IPC_NOWAIT);
    take("by number", id, 2, 2, MSG_COPY | IPC_NOWAIT | MSG_NOERROR);
    take("no such number", id, 100, 5, MSG_COPY | IPC_NOWAIT);
    take("copy must not wait", id, 100, 0, MSG_COPY);
    take("copy except", id, 100, 0, MSG_COPY | IPC_NOWAIT | MSG_EXCEPT);
    take("lowest up to 2", id, 100, -2, 0);
    take("except 3", id, 100, 3, MSG_EXCEPT);
    take("too small", id, 2, 1, 0);
    take("cut", id, 3, 1, MSG_NOERROR);
    take("none of type 1", id, 100, 1, IPC_NOWAIT);
    take("up to LONG_MIN", id, 100, LONG_MIN, 0);
    take("any", id, 100, 0, 0);
    take("empty", id, 100, 0, IPC_NOWAIT);
    stat_line("empty", id);
    MUST(msgctl(id, IPC_RMID, NULL));
}

static void errors(void)
{
    CASE("errors");
    int id = MUST(msgget(IPC_PRIVATE, 0600));
    SHOW(put(id, 0, "x", 0));
    SHOW(put(id, -1, "x", 0));
    SHOW(put(-1, 1, "x", 0));
    SHOW(put(id + 1, 1, "x", 0));
    out.type = 1;
    SHOW(msgsnd(id, &out, 8193, 0));
    SHOW(msgsnd(id, &out, -1, 0));
    SHOW(msgsnd(id, BAD, 1, 0));
    SHOW(msgsnd(id, BAD, 8193, 0));
    SHOW(msgsnd(-1, BAD, 1, 0));
    SHOW(msgrcv(id, &in, -1, 0, IPC_NOWAIT));
    SHOW(msgrcv(-1, &in, 10, 0, IPC_NOWAIT));
    SHOW(msgrcv(id + 1, &in, 10, 0, IPC_NOWAIT));
    SHOW(put(id, 1, "lost", 0));
    SHOW(msgrcv(id, BAD, 10, 0, IPC_NOWAIT));
    stat_line("it is gone", id);
    SHOW(msgsnd(id, &out, 8192, IPC_NOWAIT));
    SHOW(msgsnd(id, &out, 8192, IPC_NOWAIT));
    SHOW(msgsnd(id, &out, 1, IPC_NOWAIT));
    SHOW(msgsnd(id, &out, 0, IPC_NOWAIT));
    stat_line("full", id);
    SHOW(msgrcv(id, &in, 8192, 0, 0));
    SHOW(msgctl(id, IPC_STAT, BAD));
    SHOW(msgctl(id, IPC_SET, BAD));
    SHOW(msgctl(id, 99, NULL));
    SHOW(msgctl(id, -1, NULL));
    SHOW(msgctl(-1, IPC_STAT, NULL));
    struct msqid_ds ds;
    MUST(msgctl(id, IPC_STAT, &ds));
    ds.msg_qbytes = 8193;
    ds.msg_perm.mode = 07644;
    SHOW(msgctl(id, IPC_SET, &ds));
    stat_line("smaller", id);
    SHOW(msgsnd(id, &out, 2, IPC_NOWAIT));
    SHOW(msgsnd(id, &out, 1, IPC_NOWAIT));
    SHOW_IF(msgctl(id & 0x7fff, MSG_STAT, &ds) == id);
    SHOW_IF(msgctl(id & 0x7fff, 13, &ds) == id);
    struct msginfo info;
    SHOW_OK(msgctl(0, IPC_INFO, (void *)&info));
    say("%d %d %d %d %d %d %d %u", info.msgpool, info.msgmap, info.msgmax, info.msgmnb, info.msgmni, info.msgssz,
        info.msgtql, info.msgseg);
    SHOW_OK(msgctl(0, MSG_INFO, (void *)&info));
    SHOW_IF(info.msgpool >= 1 && info.msgmap >= 2 && info.msgtql >= 8193);
    MUST(msgctl(id, IPC_RMID, NULL));
}

/* Lets the child get to sleep: it has nothing else to do. */
static void settle(pid_t child)
{
    until_asleep(child);
    usleep(5000);
}

static int recv_code(int id, size_t size, long type, int flags)
{
    ssize_t got = msgrcv(id, &in, size, type, flags);
    return got >= 0 ? (int)(100 + got) : errno;
}

static void on_signal(int signo UNUSED)
{
}

static void sleeping(void)
{
    CASE("sleepers");
    int id = MUST(msgget(IPC_PRIVATE, 0600));
    pid_t first = CHILD(_exit(recv_code(id, 100, 7, 0)));
    settle(first);
    pid_t second = CHILD(_exit(recv_code(id, 2, 0, 0)));
    settle(second);
    SHOW(put(id, 7, "seven", 0));
    reap("first", first);
    SHOW(put(id, 1, "too long", 0));
    reap("second", second);
    stat_line("left", id);
    take("left", id, 100, 0, 0);
    pid_t removed = CHILD(_exit(recv_code(id, 100, 0, 0) == EIDRM ? 0 : 1));
    settle(removed);
    struct msqid_ds ds;
    MUST(msgctl(id, IPC_STAT, &ds));
    MUST(msgctl(id, IPC_SET, &ds));
    SHOW(msgctl(id, IPC_RMID, NULL));
    reap("removed", removed);

    id = MUST(msgget(IPC_PRIVATE, 0600));
    out.type = 1;
    MUST(msgsnd(id, &out, 8192, 0));
    MUST(msgsnd(id, &out, 8000, 0));
    pid_t sender = CHILD(_exit(put(id, 2, strcpy(in.data, "waits for room"), 0) == 0 ? 0 : errno); );
    settle(sender);
    SHOW(msgrcv(id, &in, 8192, 0, 0));
    reap("small one fits already", sender);
    sender = CHILD(out.type = 3; _exit(msgsnd(id, &out, 8192, 0) == 0 ? 0 : errno));
    settle(sender);
    SHOW(msgrcv(id, &in, 8192, 0, 0));
    reap("sender", sender);
    sender = CHILD(out.type = 3; MUST(msgsnd(id, &out, 8000, 0)); _exit(msgsnd(id, &out, 8192, 0) == 0 ? 0 : errno));
    settle(sender);
    SHOW(msgctl(id, IPC_RMID, NULL));
    SHOW_IF(reap("sender of a removed queue", sender) >> 8 == EIDRM);

    id = MUST(msgget(IPC_PRIVATE, 0600));
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction sa = {.sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0};
        MUST(sigaction(SIGUSR1, &sa, NULL));
        pid_t child = CHILD(_exit(recv_code(id, 100, 0, 0)));
        settle(child);
        MUST(kill(child, SIGUSR1));
        reap("interrupted", child);
    }
    signal(SIGCONT, SIG_DFL);
    pid_t child = CHILD(_exit(recv_code(id, 100, 0, 0)));
    settle(child);
    MUST(kill(child, SIGSTOP));
    MUST(kill(child, SIGCONT));
    usleep(10000);
    SHOW(put(id, 1, "after a stop", 0));
    reap("continued", child);
    MUST(msgctl(id, IPC_RMID, NULL));
}

int main(void)
{
    getting();
    order();
    errors();
    sleeping();
    return 0;
}
