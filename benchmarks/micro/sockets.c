/* Unix sockets, and TCP and UDP over the loopback; skipped where there are no such sockets. */
#define _GNU_SOURCE
#include "micro.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static int pair[2], listener;
static struct sockaddr_in address;

static int need(int result, const char *what)
{
    if (result >= 0)
        return result;
    if (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ENOSYS)
        skip(what);
    fail(what);
}

static void close_pair(void)
{
    close(pair[0]);
    stop_child();
    close(pair[1]);
}

static void echo(void)
{
    char byte;
    close(pair[0]);
    while (read(pair[1], &byte, 1) == 1 && write(pair[1], &byte, 1) == 1)
        ;
}

static void drain(void)
{
    close(pair[0]);
    while (read(pair[1], block, sizeof block) > 0)
        ;
}

static void op_pingpong(void)
{
    MUST(write(pair[0], block, 1) == 1);
    MUST(read(pair[0], block, 1) == 1);
}

static void op_chunk(void)
{
    for (size_t done = 0; done < sizeof block;) {
        ssize_t sent = write(pair[0], block + done, sizeof block - done);
        MUST(sent > 0);
        done += (size_t)sent;
    }
}

static void open_unix(void)
{
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair(AF_UNIX)");
    start_child(echo);
}

/* Some free port of 127.0.0.1, left in `address`. */
static int bound(int type, const char *what)
{
    int fd = need(socket(AF_INET, type, 0), what);
    socklen_t size = sizeof address;
    address = (struct sockaddr_in){.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    MUST(bind(fd, (struct sockaddr *)&address, size) == 0);
    MUST(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    return fd;
}

static void open_listener(void)
{
    listener = bound(SOCK_STREAM, "socket(AF_INET, SOCK_STREAM)");
    MUST(listen(listener, 128) == 0);
}

static void close_listener(void)
{
    close(listener);
}

static void connect_pair(void)
{
    MUST((pair[0] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    MUST(connect(pair[0], (struct sockaddr *)&address, sizeof address) == 0);
    MUST((pair[1] = accept(listener, NULL, NULL)) >= 0);
}

static void op_connect_accept(void)
{
    connect_pair();
    close(pair[0]);
    close(pair[1]);
}

static void open_tcp(void)
{
    int yes = 1;
    open_listener();
    connect_pair();
    close_listener();
    for (int i = 0; i < 2; i++)
        MUST(setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
}

static void open_tcp_echo(void)
{
    open_tcp();
    start_child(echo);
}

static void open_tcp_drain(void)
{
    open_tcp();
    start_child(drain);
}

static void open_udp(void)
{
    pair[1] = bound(SOCK_DGRAM, "socket(AF_INET, SOCK_DGRAM)");
    MUST((pair[0] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
    MUST(connect(pair[0], (struct sockaddr *)&address, sizeof address) == 0);
}

static void close_udp(void)
{
    close(pair[0]);
    close(pair[1]);
}

static void op_udp(void)
{
    MUST(send(pair[0], block, 1, 0) == 1);
    MUST(recv(pair[1], block, 1, 0) == 1);
}

const struct operation socket_operations[] = {
    {"unix_pingpong", op_pingpong, open_unix, close_pair},
    {"tcp_lo_pingpong", op_pingpong, open_tcp_echo, close_pair},
    {"tcp_lo_connect_accept", op_connect_accept, open_listener, close_listener},
    {"tcp_lo_64k_chunk", op_chunk, open_tcp_drain, close_pair},
    {"udp_lo_send_recv", op_udp, open_udp, close_udp},
    {NULL, NULL, NULL, NULL},
};
