/*
 * One of many clients that are killed at any time: eight threads with network, file and sysctl calls for
 * as many milliseconds as the first argument says. The second is a UDP port that is this client's.
 */
#include "stock.h"

enum { BYTES = 3000 };

static volatile int stop;
static int port, rounds, bad_tcp, bad_udp, bad_local, bad_files, bad_sysctls, bad_pipes;

static void count(int *what)
{
	__sync_fetch_and_add(what, 1);
}

/* Reads until there are so many bytes. */
static int read_all(int fd, void *to, size_t len)
{
	size_t at = 0;
	while (at < len) {
		ssize_t n = rump_sys_read(fd, (char *)to + at, len - at);
		if (n <= 0)
			return 0;
		at += (size_t)n;
	}
	return 1;
}

static void *echo_one(void *listener)
{
	char bytes[BYTES];
	int s = rump_sys_accept((int)(uintptr_t)listener, NULL, NULL);
	if (s < 0 || !read_all(s, bytes, sizeof bytes) || rump_sys_write(s, bytes, sizeof bytes) != BYTES)
		count(&bad_tcp);
	rump_sys_close(s);
	return NULL;
}

/* A connection over lo0 to a thread of its own, and bytes there and back. */
static void *tcp(void *seed)
{
	char wrote[BYTES], back[BYTES];
	while (!stop) {
		struct nb_sockaddr_in any = { sizeof any, NB_AF_INET, 0, htonl(INADDR_LOOPBACK), { 0 } };
		socklen_t len = sizeof any;
		pthread_t echo;
		int listener = rump_sys_socket(NB_AF_INET, NB_SOCK_STREAM, 0);
		int s = rump_sys_socket(NB_AF_INET, NB_SOCK_STREAM, 0);
		fill(wrote, sizeof wrote, (uint64_t)(uintptr_t)seed + (uint64_t)rounds);
		if (listener < 0 || s < 0 || rump_sys_bind(listener, P(&any), sizeof any) != 0 ||
		    rump_sys_listen(listener, 5) != 0 || rump_sys_getsockname(listener, P(&any), &len) != 0) {
			count(&bad_tcp);
			return NULL;
		}
		pthread_create(&echo, NULL, echo_one, P((uintptr_t)listener));
		if (rump_sys_connect(s, P(&any), sizeof any) != 0 ||
		    rump_sys_write(s, wrote, sizeof wrote) != BYTES || !read_all(s, back, sizeof back) ||
		    memcmp(wrote, back, sizeof back) != 0)
			count(&bad_tcp);
		pthread_join(echo, NULL);
		rump_sys_close(s);
		rump_sys_close(listener);
		count(&rounds);
	}
	return NULL;
}

static void *udp(void *unused)
{
	struct nb_sockaddr_in self = {
		sizeof self, NB_AF_INET, htons((uint16_t)port), htonl(INADDR_LOOPBACK), { 0 },
	};
	char wrote[512], back[1024];
	int s = rump_sys_socket(NB_AF_INET, NB_SOCK_DGRAM, 0);
	int64_t until = now_ms() + 10000;
	(void)unused;
	/* Who had the port before may have been killed just now. */
	int bound = rump_sys_bind(s, P(&self), sizeof self);
	while (bound == -1 && errno == NB_EADDRINUSE && now_ms() < until) {
		sleep_ms(1);
		bound = rump_sys_bind(s, P(&self), sizeof self);
	}
	if (s < 0 || bound != 0)
		count(&bad_udp);
	for (uint64_t i = 0; !stop && !bad_udp; i++) {
		fill(wrote, sizeof wrote, i);
		if (rump_sys_sendto(s, wrote, sizeof wrote, 0, P(&self), sizeof self) != sizeof wrote ||
		    rump_sys_recvfrom(s, back, sizeof back, 0, NULL, NULL) != sizeof wrote ||
		    memcmp(wrote, back, sizeof wrote) != 0)
			count(&bad_udp);
		count(&rounds);
	}
	rump_sys_close(s);
	return NULL;
}

static void *local(void *unused)
{
	char byte, name[80];
	(void)unused;
	for (int i = 0; !stop; i++) {
		struct nb_sockaddr_un address = { 0, NB_AF_LOCAL, "" };
		int pair[2];
		snprintf(name, sizeof name, "/stress%d.%d", rump_sys_getpid(), i);
		snprintf(address.path, sizeof address.path, "%s", name);
		address.len = (uint8_t)(3 + strlen(name));
		int listener = rump_sys_socket(NB_AF_LOCAL, NB_SOCK_STREAM, 0);
		int s = rump_sys_socket(NB_AF_LOCAL, NB_SOCK_STREAM, 0);
		if (rump_sys_bind(listener, P(&address), address.len) != 0 ||
		    rump_sys_listen(listener, 5) != 0 || rump_sys_connect(s, P(&address), address.len) != 0)
			count(&bad_local);
		int other = rump_sys_accept(listener, NULL, NULL);
		rump_sys_unlink(name);
		if (rump_sys_write(s, "l", 1) != 1 || rump_sys_read(other, &byte, 1) != 1 || byte != 'l')
			count(&bad_local);
		rump_sys_close(other);
		rump_sys_close(s);
		rump_sys_close(listener);
		if (rump_sys_socketpair(NB_AF_LOCAL, NB_SOCK_STREAM, 0, pair) != 0 ||
		    rump_sys_write(pair[0], "p", 1) != 1 || rump_sys_read(pair[1], &byte, 1) != 1 || byte != 'p')
			count(&bad_local);
		rump_sys_close(pair[0]);
		rump_sys_close(pair[1]);
		count(&rounds);
	}
	return NULL;
}

static void *files(void *number)
{
	char name[64], wrote[20000], back[20000];
	snprintf(name, sizeof name, "/stress%d.file%d", rump_sys_getpid(), (int)(uintptr_t)number);
	for (uint64_t i = 0; !stop; i++) {
		int fd = rump_sys_open(name, NB_O_RDWR | NB_O_CREAT | NB_O_TRUNC, 0600);
		rump_sys_unlink(name);
		fill(wrote, sizeof wrote, i);
		if (rump_sys_pwrite(fd, wrote, sizeof wrote, 0) != sizeof wrote ||
		    rump_sys_pread(fd, back, sizeof back, 0) != sizeof back ||
		    memcmp(wrote, back, sizeof back) != 0)
			count(&bad_files);
		rump_sys_close(fd);
		count(&rounds);
	}
	return NULL;
}

static void *sysctls(void *unused)
{
	(void)unused;
	while (!stop) {
		char text[256];
		size_t len = sizeof text;
		int number = 0, name[2] = { 1, 1 };
		if (rump_sys___sysctl(name, 2, text, &len, NULL, 0) != 0 || strcmp(text, "NetBSD") != 0)
			count(&bad_sysctls);
		name[0] = 6;
		name[1] = 3;
		len = sizeof number;
		if (rump_sys___sysctl(name, 2, &number, &len, NULL, 0) != 0 || number < 1)
			count(&bad_sysctls);
		count(&rounds);
	}
	return NULL;
}

/* Is asleep most of the time: in a read, a poll with a time limit, and a nanosleep. */
static void *pipes(void *unused)
{
	struct nb_timespec wait = { 0, 5000000 };
	char byte;
	int ends[2];
	(void)unused;
	rump_sys_pipe(ends);
	while (!stop) {
		struct pollfd readable = { ends[0], POLLIN, 0 };
		if (rump_sys_poll(&readable, 1, 20) != 0 || rump_sys_nanosleep(P(&wait), NULL) != 0)
			count(&bad_pipes);
		if (rump_sys_write(ends[1], "w", 1) != 1 || rump_sys_poll(&readable, 1, -1) != 1 ||
		    rump_sys_read(ends[0], &byte, 1) != 1)
			count(&bad_pipes);
		count(&rounds);
	}
	rump_sys_close(ends[0]);
	rump_sys_close(ends[1]);
	return NULL;
}

int main(int count, char **args)
{
	void *(*mains[8])(void *) = { tcp, tcp, udp, local, files, files, sysctls, pipes };
	pthread_t threads[8];
	begin("stress", 60);
	if (count != 3)
		return 2;
	port = atoi(args[2]);
	connect_to_server();
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], NULL, mains[i], P((uintptr_t)i));
	sleep_ms(atoi(args[1]));
	stop = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	check(bad_tcp == 0, "TCP over lo0 (%d bad)", bad_tcp);
	check(bad_udp == 0, "UDP over lo0 (%d bad)", bad_udp);
	check(bad_local == 0, "AF_LOCAL (%d bad)", bad_local);
	check(bad_files == 0, "files (%d bad)", bad_files);
	check(bad_sysctls == 0, "sysctl (%d bad)", bad_sysctls);
	check(bad_pipes == 0, "pipe, poll and nanosleep (%d bad)", bad_pipes);
	info("%d rounds", rounds);
	return end();
}
