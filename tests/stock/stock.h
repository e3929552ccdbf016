/*
 * What the programs in this directory share: how they report, NetBSD/amd64's numbers and structures,
 * and frames by hand. They are linked with a stock librumpclient and told RUMP_SERVER.
 *
 * A line of output begins with PASS, FAIL, SKIP (this server lacks what is to be checked) or INFO; the
 * last one begins with DONE. The exit status is 0 if nothing failed.
 */
#ifndef STOCK_H
#define STOCK_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rump/rumpclient.h>
#include <rump/rump_syscalls.h>

/* ---- NetBSD's numbers ---- */

enum {
	NB_O_RDONLY = 0, NB_O_WRONLY = 1, NB_O_RDWR = 2, NB_O_NONBLOCK = 4, NB_O_APPEND = 8,
	NB_O_CREAT = 0x200, NB_O_TRUNC = 0x400, NB_O_EXCL = 0x800, NB_O_CLOEXEC = 0x400000,
	NB_F_DUPFD = 0, NB_F_GETFD = 1, NB_F_SETFD = 2, NB_F_GETFL = 3, NB_F_SETFL = 4,
	NB_F_DUPFD_CLOEXEC = 12, NB_FD_CLOEXEC = 1,
	NB_AF_LOCAL = 1, NB_AF_INET = 2, NB_SOCK_STREAM = 1, NB_SOCK_DGRAM = 2,
	NB_SOL_SOCKET = 0xffff, NB_SO_REUSEADDR = 4, NB_SO_TYPE = 0x1008,
	NB_S_IFMT = 0170000, NB_S_IFIFO = 0010000, NB_S_IFCHR = 0020000, NB_S_IFDIR = 0040000,
	NB_S_IFREG = 0100000,
	NB_EPERM = 1, NB_ENOENT = 2, NB_EBADF = 9, NB_ENOMEM = 12, NB_EEXIST = 17, NB_ENOTDIR = 20,
	NB_EISDIR = 21, NB_EINVAL = 22, NB_EMFILE = 24, NB_ESPIPE = 29, NB_EPIPE = 32, NB_EAGAIN = 35,
	NB_ENOTSOCK = 38, NB_EOPNOTSUPP = 45, NB_EAFNOSUPPORT = 47, NB_EADDRINUSE = 48,
	NB_ENOTCONN = 57, NB_ENAMETOOLONG = 63, NB_ENOTEMPTY = 66, NB_ENOSYS = 78,
	NB_SYS_getpid = 20, NB_SYS_kill = 37,
	NB_SIGUSR2 = 31,
};

struct nb_stat {
	uint64_t dev;
	uint32_t mode;
	uint64_t ino;
	uint32_t nlink, uid, gid;
	uint64_t rdev;
	int64_t atime[2], mtime[2], ctime[2], birthtime[2];
	int64_t size, blocks;
	uint32_t blksize, flags, gen, spare[2];
};
_Static_assert(sizeof(struct nb_stat) == 152, "struct stat");
_Static_assert(offsetof(struct nb_stat, size) == 112, "struct stat");

struct nb_sockaddr_in {
	uint8_t len, family;
	uint16_t port;
	uint32_t addr;
	uint8_t zero[8];
};
struct nb_sockaddr_un {
	uint8_t len, family;
	char path[104];
};
struct nb_timespec {
	int64_t sec, nsec;
};
struct nb_timeval {
	int64_t sec;
	int32_t usec, pad;
};

/* The rump_sys_ functions are declared with the host's structures; this hands them NetBSD's. */
#define P(...) ((void *)(__VA_ARGS__))

/* ---- reporting ---- */

static const char *program = "?";
static int passed, failed, skipped;
static pthread_mutex_t reporting = PTHREAD_MUTEX_INITIALIZER;

static void report(const char *kind, int error, const char *format, va_list ap)
{
	char text[512];
	vsnprintf(text, sizeof text, format, ap);
	pthread_mutex_lock(&reporting);
	if (error >= 0)
		printf("%s %s: %s (errno %d)\n", kind, program, text, error);
	else
		printf("%s %s: %s\n", kind, program, text);
	fflush(stdout);
	pthread_mutex_unlock(&reporting);
}

__attribute__((format(printf, 3, 4))) static int checked(int ok, int error, const char *format, ...)
{
	va_list ap;
	errno = error;
	va_start(ap, format);
	report(ok ? "PASS" : "FAIL", ok ? -1 : error, format, ap);
	va_end(ap);
	__sync_fetch_and_add(ok ? &passed : &failed, 1);
	errno = error;
	return ok;
}

/* The condition is worked out before what is printed about it. */
#define check(condition, ...) ({                                                                   \
	int ok_ = !!(condition), error_ = errno;                                                   \
	checked(ok_, error_, __VA_ARGS__);                                                         \
})

__attribute__((format(printf, 1, 2), unused)) static void info(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	report("INFO", -1, format, ap);
	va_end(ap);
}

__attribute__((format(printf, 1, 2), unused)) static void skip(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	report("SKIP", -1, format, ap);
	va_end(ap);
	skipped++;
}

/* Whether an error means that the server has no such thing, rather than that it failed. */
__attribute__((unused)) static int is_lacking(int error)
{
	return error == NB_ENOSYS || error == NB_EAFNOSUPPORT || error == NB_EOPNOTSUPP;
}

__attribute__((unused)) static void sleep_ms(int ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000L };
	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

__attribute__((unused)) static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Instead of alarm(2): librumpclient blocks signals in a thread that waits for a call. */
static void *watch(void *seconds)
{
	sigset_t all;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	sleep_ms(1000 * (int)(uintptr_t)seconds);
	printf("FAIL %s: not done after %d seconds\n", program, (int)(uintptr_t)seconds);
	fflush(stdout);
	_exit(99);
}

/* First of all: the program's name, and how long it may take. */
__attribute__((unused)) static void begin(const char *name, int seconds)
{
	pthread_t thread;
	program = name;
	pthread_create(&thread, NULL, watch, P((uintptr_t)seconds));
}

/* Last of all. */
__attribute__((unused)) static int end(void)
{
	printf("DONE %s: %d passed, %d failed, %d skipped\n", program, passed, failed, skipped);
	fflush(stdout);
	return failed != 0;
}

__attribute__((unused)) static void connect_to_server(void)
{
	if (!check(rumpclient_init() == 0, "rumpclient_init at %s", getenv("RUMP_SERVER")))
		exit(end());
}

/* Bytes that tell one place from another. */
__attribute__((unused)) static void fill(void *to, size_t len, uint64_t seed)
{
	uint8_t *bytes = to;
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bytes[i] = (uint8_t)x;
	}
}

__attribute__((unused)) static int exit_status_of(pid_t child)
{
	int status = -1;
	while (waitpid(child, &status, 0) == -1 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* ---- frames by hand ---- */

struct frame {
	uint64_t len, reqno;
	uint16_t class, type;
	uint32_t word;
};
enum { CLASS_REQUEST, CLASS_RESPONSE, CLASS_ERROR };
enum { TYPE_HANDSHAKE };
enum { HANDSHAKE_GUEST, HANDSHAKE_FORK = 2 };

/* A connection whose banner has been read, or -1. */
__attribute__((unused)) static int raw_connect(void)
{
	const char *url = getenv("RUMP_SERVER");
	char banner[97];
	int s = -1, failure = -1;
	if (strncmp(url, "unix://", 7) == 0) {
		struct sockaddr_un sun = { .sun_family = AF_UNIX };
		snprintf(sun.sun_path, sizeof sun.sun_path, "%s", url + 7);
		s = socket(AF_UNIX, SOCK_STREAM, 0);
		failure = connect(s, P(&sun), sizeof sun);
	} else if (strncmp(url, "tcp://", 6) == 0) {
		struct sockaddr_in sin = { .sin_family = AF_INET };
		char address[64];
		snprintf(address, sizeof address, "%s", url + 6);
		char *colon = strrchr(address, ':');
		*colon = 0;
		sin.sin_addr.s_addr = inet_addr(address);
		sin.sin_port = htons((uint16_t)atoi(colon + 1));
		s = socket(AF_INET, SOCK_STREAM, 0);
		failure = connect(s, P(&sin), sizeof sin);
	}
	struct timeval patience = { 10, 0 };
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (failure || read(s, banner, sizeof banner) <= 0) {
		close(s);
		return -1;
	}
	return s;
}

/* A request, and the response's error or the refusal's code; -1 if there is no answer. */
__attribute__((unused)) static int raw_handshake(int s, uint32_t kind, const void *body, size_t len)
{
	struct { struct frame header; uint8_t body[104]; } request = {
		{ sizeof(struct frame) + len, 7, CLASS_REQUEST, TYPE_HANDSHAKE, kind }, { 0 },
	};
	struct { struct frame header; int32_t error; } answer;
	memcpy(request.body, body, len);
	if (send(s, &request, sizeof(struct frame) + len, MSG_NOSIGNAL) == -1)
		return -1;
	if (recv(s, &answer.header, sizeof answer.header, MSG_WAITALL) != sizeof answer.header)
		return -1;
	if (answer.header.reqno != 7 || answer.header.type != TYPE_HANDSHAKE)
		return -1;
	if (answer.header.class == CLASS_ERROR)
		return (int)answer.header.word;
	if (answer.header.class != CLASS_RESPONSE || answer.header.len != 28)
		return -1;
	return recv(s, &answer.error, 4, MSG_WAITALL) == 4 ? answer.error : -1;
}

/* Whether the server closes the connection within that time. */
__attribute__((unused)) static int is_closed_within(int s, int ms)
{
	char bytes[4096];
	int64_t until = now_ms() + ms;
	for (;;) {
		struct pollfd readable = { s, POLLIN, 0 };
		int64_t left = until - now_ms();
		if (left <= 0 || poll(&readable, 1, (int)left) <= 0)
			return 0;
		ssize_t n = read(s, bytes, sizeof bytes);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 1;
	}
}
#endif
