/* The limit of the echo table: what the kernel charges for an echo when the program around it costs nothing.
 *
 * One level-triggered epoll, one read and one write a request, TCP_NODELAY, as every other server of the table.
 * A message is small against the socket buffer, so a short write means the premise is broken: give up loudly.
 * Prints {"port": N, "pid": N} when it listens; runs until killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void accept_all(int epoll, int server)
{
    int fd, on = 1;
    while ((fd = accept4(server, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept4");
}

static void echo(int fd)
{
    static char buffer[16384];
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got > 0) {
        if (send(fd, buffer, (size_t)got, MSG_NOSIGNAL) != got && errno != ECONNRESET && errno != EPIPE)
            die("send");
    } else if (got == 0 || errno != EAGAIN) {
        close(fd);
    }
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct epoll_event event = {.events = EPOLLIN}, events[1024];
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    if (server < 0 || epoll < 0 || bind(server, (struct sockaddr *)&address, length) < 0 || listen(server, 2048) < 0)
        die("listen");
    if (getsockname(server, (struct sockaddr *)&address, &length) < 0)
        die("getsockname");
    event.data.fd = server;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event) < 0)
        die("epoll_ctl");
    printf("{\"port\": %d, \"pid\": %d}\n", ntohs(address.sin_port), (int)getpid());
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, 1024, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == server)
                accept_all(epoll, server);
            else
                echo(events[i].data.fd);
        }
    }
}
