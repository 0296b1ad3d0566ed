/* The load generator: closed loop, one message in flight a connection, one core.
 *
 *   load <port> <connections> <message bytes> <warm-up seconds> <seconds> <requests>
 *
 * With <requests> 0: warm up, print "start", measure for <seconds>, print the result. Otherwise: print "start", send exactly
 * <requests> messages on each connection, print the result. Then the connections stay open, idle, until stdin says
 * something or ends, so that the watcher can read the server's CPU clock before any connection is closed.
 * With two cores or more the generator never sleeps. A sender pays for waking a sleeping receiver, in a virtual machine several
 * microseconds of system time; a fast server keeps the generator awake and a slow one does not, so a sleeping generator
 * would charge the slow ones for more than their work.
 *
 * Result: {"requests": N, "seconds": S, "p50": us, "p99": us, "p999": us}. Latencies are kept in buckets of one microsecond.
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
#include <time.h>
#include <unistd.h>

#define BUCKETS 2000000

struct connection {
    int fd;
    long received; /* bytes of the answer under way */
    long left;     /* requests still to send in counting mode */
    double sent;   /* when the message in flight was sent */
};

static unsigned buckets[BUCKETS];
static char message[1 << 20], scratch[1 << 20];
static long size;

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

static void request(struct connection *connection)
{
    connection->received = 0;
    connection->sent = now();
    if (send(connection->fd, message, (size_t)size, MSG_NOSIGNAL) != size)
        die("send");
}

static double percentile(long total, double fraction)
{
    long wanted = (long)((double)total * fraction), seen = 0;
    for (long i = 0; i < BUCKETS; i++)
        if ((seen += buckets[i]) > wanted)
            return (double)i + 0.5;
    return BUCKETS;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    int count = atoi(argv[2]), pause = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 0 : 1000, epoll = epoll_create1(0), on = 1, measuring = 0;
    double warm = atof(argv[4]), seconds = atof(argv[5]), begin, end, answered;
    long per_connection = atol(argv[6]), done = 0, wanted = per_connection * count;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    struct epoll_event events[1024];
    size = atol(argv[3]);
    if (connections == NULL || epoll < 0 || size < 1 || size > (long)sizeof message)
        return 2;
    memset(message, 'x', (size_t)size);
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        int fd = connections[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            die("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
        connections[i].left = per_connection;
    }
    begin = answered = now();
    if (per_connection) {
        measuring = 1;
        puts("start");
        fflush(stdout);
    }
    for (int i = 0; i < count; i++)
        request(&connections[i]);
    for (;;) {
        int ready = epoll_wait(epoll, events, 1024, pause);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        end = now();
        if (ready > 0)
            answered = end;
        if (end - answered > 10.0) {
            fputs("no answer for ten seconds\n", stderr);
            return 1;
        }
        if (!per_connection && !measuring && end - begin >= warm) {
            measuring = 1;
            puts("start");
            fflush(stdout);
            begin = end = now();
        }
        if (!per_connection && measuring && end - begin >= seconds)
            break;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            ssize_t got = recv(connection->fd, scratch, sizeof scratch, MSG_DONTWAIT);
            if (got == 0)
                errno = ECONNRESET;
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN)
                    continue;
                die("recv");
            }
            if ((connection->received += got) < size)
                continue;
            if (measuring) {
                long bucket = (long)((now() - connection->sent) * 1e6);
                buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
                done++;
            }
            if (!per_connection || --connection->left > 0)
                request(connection);
        }
        if (per_connection && done == wanted)
            break;
    }
    end = now();
    printf("{\"requests\": %ld, \"seconds\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f}\n", done, end - begin,
           percentile(done, 0.50), percentile(done, 0.99), percentile(done, 0.999));
    fflush(stdout);
    return read(0, scratch, 1) < 0;
}
