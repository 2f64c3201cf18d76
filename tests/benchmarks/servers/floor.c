/* The floor: what one send() a client costs, with no server around it.
 *
 * floor PORT CONTROL_PORT: a client that connects to PORT and asks for a channel receives the headers of a chunked event
 * stream. Each line that arrives at CONTROL_PORT names a channel and has an event. It is framed once and sent to all
 * clients of the channel, one send() each; a dot confirms it.
 *
 * Channels are named "c1", "c2" and so on; any other name is channel 0.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 131072
#define MAX_CHANNELS 65536
#define MAX_LINE 65536

/* The clients of a channel are a list: the first one, and after each client the next one. 0 ends it. */
static int first[MAX_CHANNELS];
static struct {
    int next, channel;
} clients[MAX_DESCRIPTORS];
static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                           "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n";

static void check(int bad, const char *what)
{
    if (bad) {
        perror(what);
        exit(1);
    }
}

static int listener(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(fd < 0, "socket");
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0, "setsockopt");
    check(bind(fd, (struct sockaddr *)&address, sizeof address) < 0, "bind");
    check(listen(fd, 4096) < 0, "listen");
    return fd;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0, "epoll_ctl");
}

static int channel_number(const char *name)
{
    int number = *name == 'c' ? atoi(name + 1) : 0;

    check(number < 0 || number >= MAX_CHANNELS, "channel");
    return number;
}

static void add(int fd, int channel)
{
    check(fd >= MAX_DESCRIPTORS, "client");
    clients[fd].channel = channel;
    clients[fd].next = first[channel];
    first[channel] = fd;
}

static void forget(int fd)
{
    for (int *at = &first[clients[fd].channel]; *at != 0; at = &clients[*at].next)
        if (*at == fd) {
            *at = clients[fd].next;
            break;
        }
    close(fd);
}

static void fan_out(const char *line, const char *end)
{
    static char frame[MAX_LINE + 64];
    const char *space = memchr(line, ' ', end - line);

    check(space == NULL, "line");
    int length = end - space - 1;
    int size = snprintf(frame, sizeof frame, "%x\r\ndata:%.*s\n\n\r\n", length + 7, length, space + 1);

    for (int fd = first[channel_number(line)]; fd != 0; fd = clients[fd].next)
        if (send(fd, frame, size, MSG_NOSIGNAL) < 0)
            perror("send");
}

/* Returns what is left of an unfinished line. */
static int lines(int fd, char *text, int length)
{
    char *line = text, *end;

    while ((end = memchr(line, '\n', text + length - line)) != NULL) {
        fan_out(line, end);
        check(send(fd, ".", 1, MSG_NOSIGNAL) < 0, "confirm");
        line = end + 1;
    }
    length -= line - text;
    memmove(text, line, length);
    return length;
}

static void client_input(int fd)
{
    char request[4096];
    ssize_t got = recv(fd, request, sizeof request - 1, 0);

    if (got <= 0) {
        forget(fd);
    } else if (got >= 4 && memcmp(request + got - 4, "\r\n\r\n", 4) == 0) {
        request[got] = 0;
        char *name = strstr(request, "channel=");
        add(fd, name == NULL ? 0 : channel_number(name + strlen("channel=")));
        check(send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0, "head");
    }
}

int main(int argc, char **argv)
{
    static char text[MAX_LINE];
    struct epoll_event events[256];
    int left = 0, control = -1, on = 1, epoll = epoll_create1(0);

    check(argc != 3, "floor PORT CONTROL_PORT");
    int door = listener(atoi(argv[1])), control_door = listener(atoi(argv[2]));
    watch(epoll, door);
    watch(epoll, control_door);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == door || fd == control_door) {
                int peer = accept(fd, NULL, NULL);
                check(peer < 0, "accept");
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(epoll, peer);
                control = fd == control_door ? peer : control;
            } else if (fd == control) {
                ssize_t got = recv(fd, text + left, sizeof text - left, 0);
                check(got < 0, "control");
                if (got == 0) {
                    close(fd);
                    control = -1;
                } else {
                    left = lines(fd, text, left + got);
                }
            } else {
                client_input(fd);
            }
        }
    }
}
