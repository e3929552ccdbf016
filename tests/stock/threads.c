/* Many threads of one client on its one connection: big copies both ways, pipes between threads, and
 * sleepers among them. */
#include "stock.h"

enum { FILERS = 8, ROUNDS = 10, BIG = 256 << 10, PIPES = 4, THROUGH_A_PIPE = 1 << 20, SLEEPERS = 4 };

static pid_t pid;
static int bad_writes, bad_reads, bad_bytes, bad_pids, bad_pipes, bad_sleeps;
static int pipes[PIPES][2];

static void count(int *bad, int is_bad)
{
	if (is_bad)
		__sync_fetch_and_add(bad, 1);
}

/* Writes and reads a file of its own, of another length each time. */
static void *filer(void *number)
{
	int id = (int)(uintptr_t)number;
	char name[64];
	uint8_t *wrote = malloc(BIG), *read = malloc(BIG);
	snprintf(name, sizeof name, "/threads%d.%d", pid, id);
	int fd = rump_sys_open(name, NB_O_RDWR | NB_O_CREAT | NB_O_TRUNC, 0600);
	for (int i = 0; i < ROUNDS; i++) {
		size_t n = 3 + (size_t)(BIG - 3) * (size_t)((id * 7 + i * 13) % 31) / 30;
		fill(wrote, n, (uint64_t)id << 32 | (uint64_t)i);
		count(&bad_writes, rump_sys_pwrite(fd, wrote, n, 0) != (ssize_t)n);
		memset(read, 0x5a, n);
		count(&bad_reads, rump_sys_pread(fd, read, n, 0) != (ssize_t)n);
		count(&bad_bytes, memcmp(read, wrote, n) != 0);
		struct iovec parts[3] = {
			{ read, n / 3 }, { read + n / 3, n / 3 }, { read + 2 * (n / 3), n - 2 * (n / 3) },
		};
		memset(read, 0x5a, n);
		rump_sys_lseek(fd, 0, SEEK_SET);
		count(&bad_reads, rump_sys_readv(fd, parts, 3) != (ssize_t)n);
		count(&bad_bytes, memcmp(read, wrote, n) != 0);
		count(&bad_pids, rump_sys_getpid() != pid);
	}
	rump_sys_close(fd);
	rump_sys_unlink(name);
	free(wrote);
	free(read);
	return NULL;
}

static void *pipe_writer(void *number)
{
	int id = (int)(uintptr_t)number;
	uint8_t *bytes = malloc(THROUGH_A_PIPE);
	fill(bytes, THROUGH_A_PIPE, (uint64_t)id);
	for (size_t at = 0; at < THROUGH_A_PIPE;) {
		size_t len = 1 + (at * 31 + 777) % 50000;
		if (len > THROUGH_A_PIPE - at)
			len = THROUGH_A_PIPE - at;
		ssize_t n = rump_sys_write(pipes[id][1], bytes + at, len);
		if (n <= 0) {
			count(&bad_pipes, 1);
			break;
		}
		at += (size_t)n;
	}
	rump_sys_close(pipes[id][1]);
	free(bytes);
	return NULL;
}

static void *pipe_reader(void *number)
{
	int id = (int)(uintptr_t)number;
	uint8_t *wrote = malloc(THROUGH_A_PIPE), *read = malloc(THROUGH_A_PIPE + 30000);
	size_t at = 0;
	ssize_t n;
	fill(wrote, THROUGH_A_PIPE, (uint64_t)id);
	while (at <= THROUGH_A_PIPE && (n = rump_sys_read(pipes[id][0], read + at, 30000)) > 0)
		at += (size_t)n;
	count(&bad_pipes, at != THROUGH_A_PIPE || memcmp(wrote, read, THROUGH_A_PIPE) != 0);
	rump_sys_close(pipes[id][0]);
	free(wrote);
	free(read);
	return NULL;
}

static void *sleeper(void *unused)
{
	struct nb_timespec wait = { 0, 20000000 };
	(void)unused;
	for (int i = 0; i < 10; i++)
		count(&bad_sleeps, rump_sys_nanosleep(P(&wait), NULL) != 0);
	return NULL;
}

static void one_very_big(void)
{
	size_t len = 8 << 20;
	uint8_t *wrote = malloc(len), *read = calloc(1, len);
	int fd = rump_sys_open("/threads.big", NB_O_RDWR | NB_O_CREAT | NB_O_TRUNC, 0600);
	fill(wrote, len, 99);
	check(rump_sys_pwrite(fd, wrote, len, 0) == (ssize_t)len, "pwrite of 8 MiB");
	check(rump_sys_pread(fd, read, len, 0) == (ssize_t)len && memcmp(wrote, read, len) == 0,
	    "and back");
	rump_sys_close(fd);
	rump_sys_unlink("/threads.big");
	free(wrote);
	free(read);
}

int main(void)
{
	pthread_t threads[FILERS + 2 * PIPES + SLEEPERS];
	int n = 0;
	begin("threads", 100);
	connect_to_server();
	pid = rump_sys_getpid();
	int64_t start = now_ms();
	for (int i = 0; i < FILERS; i++)
		pthread_create(&threads[n++], NULL, filer, P((uintptr_t)i));
	for (int i = 0; i < PIPES; i++) {
		if (!check(rump_sys_pipe(pipes[i]) == 0, "pipe %d", i))
			return end();
		pthread_create(&threads[n++], NULL, pipe_writer, P((uintptr_t)i));
		pthread_create(&threads[n++], NULL, pipe_reader, P((uintptr_t)i));
	}
	for (int i = 0; i < SLEEPERS; i++)
		pthread_create(&threads[n++], NULL, sleeper, NULL);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	check(bad_writes == 0, "every pwrite of up to %d bytes is whole (%d not)", BIG, bad_writes);
	check(bad_reads == 0, "every pread and readv, too (%d not)", bad_reads);
	check(bad_bytes == 0, "what is read is what was written (%d times not)", bad_bytes);
	check(bad_pids == 0, "getpid is the same in every thread (%d times not)", bad_pids);
	check(bad_pipes == 0, "%d bytes through each pipe between threads (%d bad)", THROUGH_A_PIPE,
	    bad_pipes);
	check(bad_sleeps == 0, "sleepers are not disturbed (%d times)", bad_sleeps);
	one_very_big();
	info("%d ms", (int)(now_ms() - start));
	return end();
}
