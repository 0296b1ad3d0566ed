/* The load generator for HTTP/1.1: closed loop, keep-alive connections, one core.
 *
 *   http <port> <path> <connections> <requests in flight on each> <warm-up seconds> <seconds> <requests>
 *
 * With <requests> 0: warm up, print "start", measure for <seconds>, print the result. Otherwise: print "start", send exactly
 * <requests> on each connection (a multiple of those in flight), print the result. Then the connections stay open, idle, until
 * stdin says something or ends, so that the watcher can read the server's CPU clock before any connection is closed.
 *
 * Connections are made a hundred at a time, and all of them ask and are answered before the next are made: so no backlog ever
 * overflows and costs a retransmission, and no silent connection holds a thread of a server that reads first requests in
 * threads. They come from several addresses of the loopback, so that none runs out of ports. With two cores or more the generator never sleeps; limit/load.c says why.
 *
 * An answer has to have a Content-Length. One whose status is not 200 is counted in "bad". A connection that ends, or that says
 * something else, is counted in "broken" and made anew; one that the server has ended properly between two answers is counted in
 * "reopened".
 *
 * Result: {"requests": N, "seconds": S, "p50": us, "p99": us, "p999": us, "bad": N, "broken": N, "reopened": N}. Latencies are
 * kept in buckets of one microsecond; of requests sent together each has its own, from the moment all were sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 10000000
#define ROOM 65536
#define TOGETHER 100
#define ADDRESSES 8
#define CONNECTING 20 /* seconds */
#define MOST 60       /* seconds beyond those that were asked for */

struct connection {
    int fd;
    int flying; /* requests without an answer */
    long left;  /* requests still to send in counting mode */
    long body;  /* bytes of a body that are still to come */
    int used;   /* bytes of an unfinished head in `head` */
    double sent;
    char head[1024];
};

static unsigned *buckets;
static char message[1 << 16], scratch[ROOM + 1024];
static int length, depth, epoll, measuring;
static long done, bad, broken, reopened, per_connection;
static double moment;
static struct sockaddr_in address = {.sin_family = AF_INET};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Connecting takes for ever, or all of it. */
static void give_up(int number)
{
    static const char words[] = "the server has not accepted and answered all connections in time\n";
    (void)number;
    _exit(write(2, words, sizeof words - 1) < 0 ? 2 : 1);
}

static void open_connection(struct connection *connection, int number)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number % ADDRESSES)};
    int on = 1, fd = connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    connection->flying = connection->used = 0;
    connection->body = 0;
}

static void send_requests(struct connection *connection)
{
    connection->flying = depth;
    connection->sent = moment;
    if (send(connection->fd, message, (size_t)length, MSG_NOSIGNAL) != length && errno != EPIPE && errno != ECONNRESET)
        die("send");
}

/* One answer is complete. */
static void answered(struct connection *connection)
{
    if (measuring) {
        long bucket = (long)((moment - connection->sent) * 1e6);
        buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
        done++;
    }
    connection->flying--;
}

/* The size of the body that follows a complete head, or -1. */
static long body_of(const char *head)
{
    const char *field = strcasestr(head, "\r\ncontent-length:");
    if (strncmp(head, "HTTP/1.1 200", 12) != 0)
        bad++;
    return field == NULL ? -1 : atol(field + 17);
}

/* Take what has come. 0, or -1 if it is nonsense. */
static int take(struct connection *connection, char *data, long size)
{
    while (size) {
        if (connection->body) {
            long part = size < connection->body ? size : connection->body;
            connection->body -= part;
            data += part;
            size -= part;
        } else {
            char *end = memmem(data, (size_t)size, "\r\n\r\n", 4);
            long head = end == NULL ? size : end + 4 - data;
            if (connection->used || end == NULL) { /* a head in pieces: put together */
                int before = connection->used;
                if (before + head > (long)sizeof connection->head - 1)
                    return -1;
                memcpy(connection->head + before, data, (size_t)head);
                connection->used += (int)head;
                end = memmem(connection->head, (size_t)connection->used, "\r\n\r\n", 4);
                if (end == NULL)
                    return 0;
                head = end + 4 - connection->head - before;
                connection->used = 0;
                end[2] = 0;
                connection->body = body_of(connection->head);
            } else {
                end[2] = 0;
                connection->body = body_of(data);
            }
            if (connection->body < 0 || !connection->flying)
                return -1;
            data += head;
            size -= head;
        }
        if (!connection->body)
            answered(connection);
    }
    return 0;
}

/* Receive; 0 if the connection is over. */
static int receive(struct connection *connection, int flags)
{
    ssize_t got = recv(connection->fd, scratch, ROOM, flags);
    if (got < 0 && errno == EAGAIN)
        return 1;
    if (got > 0 && take(connection, scratch, got) == 0)
        return 1;
    if (got == 0 && !connection->used && !connection->body && (!connection->flying || connection->flying == depth))
        reopened++;
    else
        broken++;
    return 0;
}

static double percentile(double fraction)
{
    long wanted = (long)((double)done * fraction), seen = 0;
    for (long i = 0; i < BUCKETS; i++)
        if ((seen += buckets[i]) > wanted)
            return (double)i + 0.5;
    return 0.0;
}

static void start(void)
{
    measuring = 1;
    done = bad = broken = reopened = 0;
    puts("start");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct epoll_event events[1024];
    struct rlimit files;
    if (argc != 8)
        return 2;
    int count = atoi(argv[3]), pause = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 0 : 1000, size;
    double warm = atof(argv[5]), seconds = atof(argv[6]), begin, last;
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    depth = atoi(argv[4]);
    per_connection = atol(argv[7]);
    buckets = calloc(BUCKETS, sizeof *buckets);
    epoll = epoll_create1(0);
    size = snprintf(message, sizeof message, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[2], argv[1]);
    if (connections == NULL || buckets == NULL || epoll < 0 || depth < 1 || size * depth >= (int)sizeof message ||
        per_connection % depth)
        return 2;
    for (int i = 1; i < depth; i++)
        memcpy(message + i * size, message, (size_t)size);
    length = size * depth;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    signal(SIGALRM, give_up);
    alarm(CONNECTING);
    for (int i = 0; i < count; i++) {
        open_connection(&connections[i], i);
        connections[i].left = per_connection;
        if (per_connection)
            continue;
        moment = now();
        send_requests(&connections[i]);
        if (i % TOGETHER == TOGETHER - 1 || i == count - 1)
            for (int j = i - i % TOGETHER; j <= i; j++)
                while (connections[j].flying)
                    if (!receive(&connections[j], 0)) {
                        fputs("a new connection was ended without an answer\n", stderr);
                        return 1;
                    }
    }
    alarm((unsigned)(warm + seconds) + MOST);
    begin = last = moment = now();
    if (per_connection)
        start();
    for (int i = 0; i < count; i++)
        send_requests(&connections[i]);
    while (!per_connection || done < per_connection * count) {
        int ready = epoll_wait(epoll, events, 1024, pause);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        moment = now();
        if (ready > 0)
            last = moment;
        if (moment - last > 10.0) {
            fputs("no answer for ten seconds\n", stderr);
            return 1;
        }
        if (!per_connection && !measuring && moment - begin >= warm) {
            start();
            begin = moment = now();
        }
        if (!per_connection && measuring && moment - begin >= seconds)
            break;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            moment = now();
            if (!receive(connection, MSG_DONTWAIT)) {
                close(connection->fd);
                if (per_connection) {
                    fputs("a connection ended\n", stderr);
                    return 1;
                }
                open_connection(connection, (int)(connection - connections));
            }
            if (!connection->flying && (!per_connection || (connection->left -= depth) > 0))
                send_requests(connection);
        }
    }
    moment = now();
    printf("{\"requests\": %ld, \"seconds\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"bad\": %ld, \"broken\": %ld, "
           "\"reopened\": %ld}\n",
           done, moment - begin, percentile(0.50), percentile(0.99), percentile(0.999), bad, broken, reopened);
    fflush(stdout);
    return read(0, scratch, 1) < 0;
}
