/* Signals: those the kernel raises in the client, and the host's own, taken while a call sleeps, with
 * calls made from the handler. */
#include "stock.h"

static volatile sig_atomic_t came[65];
static volatile sig_atomic_t handlers_pid, handlers_write;
static int ends[2];
static pthread_t reader;
static volatile int stop, wrong_pids;

static void count(int signo)
{
	came[signo]++;
}

static void call_from_handler(int signo)
{
	int error = errno;
	came[signo]++;
	handlers_pid = rump_sys_getpid();
	handlers_write = (int)rump_sys_write(ends[1], "h", 1);
	errno = error;
}

static void *send_signal(void *ms)
{
	sleep_ms((int)(uintptr_t)ms);
	pthread_kill(reader, SIGUSR1);
	return NULL;
}

static void *call_on_and_on(void *pid)
{
	while (!stop)
		if (rump_sys_getpid() != *(pid_t *)pid)
			wrong_pids++;
	return NULL;
}

static void raised_by_the_kernel(pid_t pid)
{
	int broken[2];
	register_t values[2];
	rump_sys_pipe(broken);
	rump_sys_close(broken[0]);
	check(rump_sys_write(broken[1], "x", 1) == -1 && errno == NB_EPIPE, "nobody reads: EPIPE");
	check(came[SIGPIPE] == 1, "and SIGPIPE is raised here, once (%d)", (int)came[SIGPIPE]);
	rump_sys_close(broken[1]);
	uint64_t kill[2] = { (uint64_t)pid, NB_SIGUSR2 };
	int error = rumpclient_syscall(NB_SYS_kill, kill, sizeof kill, values);
	if (error == NB_ENOSYS) {
		skip("no kill");
		return;
	}
	rump_sys_getpid();
	check(error == 0 && came[SIGUSR2] == 1, "kill of itself raises NetBSD's SIGUSR2 as the host's");
}

static void raised_by_a_timer(void)
{
	struct nb_timeval in_50_ms[2] = { { 0, 0, 0 }, { 0, 50000, 0 } };
	struct nb_timespec wait = { 0, 300000000 };
	int result = rump_sys_setitimer(0, P(in_50_ms), NULL);
	if (result == -1 && errno == NB_ENOSYS) {
		skip("no setitimer");
		return;
	}
	check(result == 0, "setitimer for 50 ms");
	check(rump_sys_nanosleep(P(&wait), NULL) == 0, "a call sleeps on meanwhile");
	rump_sys_getpid();
	check(came[SIGALRM] == 1, "SIGALRM is raised here, once (%d)", (int)came[SIGALRM]);
}

static void taken_while_a_call_sleeps(pid_t pid)
{
	char byte;
	pthread_t sender, callers[3];
	sigset_t all, before;
	int good = 0;
	rump_sys_pipe(ends);
	pthread_create(&sender, NULL, send_signal, P((uintptr_t)200));
	ssize_t n = rump_sys_read(ends[0], &byte, 1);
	pthread_join(sender, NULL);
	check(n == 1 && byte == 'h', "a read asleep is ended by its own handler's write");
	check(came[SIGUSR1] == 1 && handlers_pid == pid && handlers_write == 1, "calls from a handler");

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (int i = 0; i < 3; i++)
		pthread_create(&callers[i], NULL, call_on_and_on, &pid);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	for (int i = 0; i < 50; i++) {
		pthread_create(&sender, NULL, send_signal, P((uintptr_t)(i % 5)));
		good += rump_sys_read(ends[0], &byte, 1) == 1 && byte == 'h';
		pthread_join(sender, NULL);
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(callers[i], NULL);
	check(good == 50 && wrong_pids == 0, "50 more, with three threads that call without pause (%d)",
	    good);
}

int main(void)
{
	struct sigaction action = { .sa_handler = count };
	begin("signals", 40);
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	action.sa_handler = call_from_handler;
	sigaction(SIGUSR1, &action, NULL);
	connect_to_server();
	pid_t pid = rump_sys_getpid();
	reader = pthread_self();
	raised_by_the_kernel(pid);
	raised_by_a_timer();
	taken_while_a_call_sleeps(pid);
	return end();
}
