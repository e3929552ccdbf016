/* Exec: the pid and the files stay, less those marked close-on-exec; threads asleep in calls are ended. */
#include "stock.h"

enum { GENERATIONS = 3 };

static int empty[2];

static void *asleep(void *unused)
{
	char byte;
	(void)unused;
	rump_sys_read(empty[0], &byte, 1);
	return NULL;
}

/* Becomes this program again, with what it is to find: pid, file, closed file, pipe and generation. */
static void become(char *self, pid_t pid, int fd, int cloexec, const int *ends, int generation)
{
	extern char **environ;
	char image[4096], tally[64], numbers[6][16];
	int values[6] = { pid, fd, cloexec, ends[0], ends[1], generation };
	char *args[8] = { self };
	for (int i = 0; i < 6; i++) {
		snprintf(numbers[i], sizeof numbers[i], "%d", values[i]);
		args[i + 1] = numbers[i];
	}
	ssize_t len = readlink("/proc/self/exe", image, sizeof image - 1);
	image[len > 0 ? len : 0] = 0;
	snprintf(tally, sizeof tally, "%d %d %d", passed, failed, skipped);
	setenv("TALLY", tally, 1);
	rumpclient_exec(image, args, environ);
	check(0, "rumpclient_exec of %s", image);
}

static int became(char **args)
{
	char bytes[32] = { 0 };
	pid_t pid = atoi(args[1]);
	int fd = atoi(args[2]), cloexec = atoi(args[3]), ends[2] = { atoi(args[4]), atoi(args[5]) };
	int generation = atoi(args[6]);
	int64_t start = now_ms();
	connect_to_server();
	int took = (int)(now_ms() - start);
	check(took < 10000, "exec %d: the handshake took %d ms", generation, took);
	check(rump_sys_getpid() == pid, "the pid is still %d", pid);
	check(rump_sys_lseek(fd, 0, SEEK_CUR) == 4, "the file is there, at its offset");
	check(rump_sys_pread(fd, bytes, 4, 0) == 4 && memcmp(bytes, "exec", 4) == 0, "with its bytes");
	check(rump_sys_fcntl(cloexec, NB_F_GETFD, 0) == -1 && errno == NB_EBADF, "close-on-exec: closed");
	check(rump_sys_write(ends[1], "thru", 4) == 4 && rump_sys_read(ends[0], bytes, 32) == 4 &&
	    memcmp(bytes, "thru", 4) == 0, "the pipe works");
	struct nb_timespec wait = { 0, 10000000 };
	check(rump_sys_nanosleep(P(&wait), NULL) == 0, "it can sleep");
	pid_t child = rumpclient_fork();
	if (child == 0)
		_exit(rump_sys_getpid() == pid || rump_sys_lseek(fd, 0, SEEK_CUR) != 4);
	check(child > 0 && exit_status_of(child) == 0, "and fork");
	if (generation < GENERATIONS) {
		cloexec = rump_sys_open("/dev/null", NB_O_RDWR | NB_O_CLOEXEC);
		become(args[0], pid, fd, cloexec, ends, generation + 1);
	}
	return end();
}

int main(int count, char **args)
{
	begin("execs", 40);
	if (getenv("TALLY"))
		sscanf(getenv("TALLY"), "%d %d %d", &passed, &failed, &skipped);
	if (count > 6)
		return became(args);
	char name[64];
	int ends[2];
	pthread_t thread;
	connect_to_server();
	pid_t pid = rump_sys_getpid();
	snprintf(name, sizeof name, "/execs%d", pid);
	int fd = rump_sys_open(name, NB_O_RDWR | NB_O_CREAT | NB_O_TRUNC, 0600);
	int cloexec = rump_sys_open("/dev/null", NB_O_RDWR | NB_O_CLOEXEC);
	check(fd >= 0 && cloexec >= 0 && rump_sys_write(fd, "exec", 4) == 4, "a file to keep, one to lose");
	rump_sys_unlink(name);
	check(rump_sys_pipe(empty) == 0 && rump_sys_pipe(ends) == 0, "pipes");
	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, asleep, NULL);
	sleep_ms(200);
	check(rump_sys_getpid() == pid, "served while three threads sleep in calls");
	become(args[0], pid, fd, cloexec, ends, 1);
	return end();
}
