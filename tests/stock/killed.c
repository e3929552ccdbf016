/* Clients with threads asleep in the kernel are killed: others are served before, during and after, and
 * what they held is let go. (The reference has 128 threads for calls, and would be stuck.) */
#include "stock.h"

enum { ASLEEP = 200, AGAIN = 10, ASLEEP_AGAIN = 20 };

static int empty[2];

static void *asleep(void *unused)
{
	char byte;
	(void)unused;
	rump_sys_read(empty[0], &byte, 1);
	return NULL;
}

/* Sleeps in so many threads, and says so. */
static void be_killed(int threads, int ready)
{
	pthread_t thread;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread, &small, asleep, NULL) != 0)
			_exit(1);
	sleep_ms(100);
	write(ready, "r", 1);
	for (;;)
		pause();
}

/* Forks a client that has the write end of the pipe and nobody else, and waits until it is asleep. */
static pid_t victim(int threads)
{
	char byte;
	int ready[2];
	pipe(ready);
	pid_t host_pid = rumpclient_fork();
	if (host_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		be_killed(threads, ready[1]);
	}
	close(ready[1]);
	int is_ready = host_pid > 0 && read(ready[0], &byte, 1) == 1;
	close(ready[0]);
	return is_ready ? host_pid : -1;
}

int main(void)
{
	char byte;
	int good = 0;
	begin("killed", 60);
	connect_to_server();
	rump_sys_pipe(empty);
	pid_t host_pid = victim(ASLEEP);
	check(host_pid > 0, "a child has %d threads asleep", ASLEEP);
	rump_sys_close(empty[1]);
	int64_t start = now_ms();
	check(rump_sys_getpid() > 1, "others are served");
	int took = (int)(now_ms() - start);
	check(took < 5000, "at once (%d ms)", took);
	if (host_pid <= 0) {
		/* kill(-1) would be everybody. */
		return end();
	}
	kill(host_pid, SIGKILL);
	waitpid(host_pid, NULL, 0);
	check(rump_sys_read(empty[0], &byte, 1) == 0, "its end of the pipe is closed when it is killed");
	rump_sys_close(empty[0]);
	for (int i = 0; i < AGAIN; i++) {
		rump_sys_pipe(empty);
		host_pid = victim(ASLEEP_AGAIN);
		rump_sys_close(empty[1]);
		if (host_pid > 0) {
			kill(host_pid, SIGKILL);
			waitpid(host_pid, NULL, 0);
			good += rump_sys_read(empty[0], &byte, 1) == 0;
		}
		rump_sys_close(empty[0]);
	}
	check(good == AGAIN, "%d more such (%d)", AGAIN, good);
	check(rump_sys_getpid() > 1, "others are served as before");
	return end();
}
