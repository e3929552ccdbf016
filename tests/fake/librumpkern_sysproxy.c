/* The stand-in's system calls, and what reaches its clients' memory. */
#define _GNU_SOURCE
#include "fake.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int rump_fake_reboot(int);

/* As in fake/mod.rs. Those under 500 are NetBSD's. */
enum {
	SYS_READ = 3,
	SYS_WRITE = 4,
	SYS_CLOSE = 6,
	SYS_GETPID = 20,
	SYS_KILL = 37,
	SYS_GETPPID = 39,
	SYS_PIPE = 42,
	SYS_REBOOT = 208,
	SYS_NANOSLEEP = 430, /* time */
	SYS_PIPE2 = 453,
	SYS_ECHO = 520, /* from, to, length */
	SYS_ECHOSTR, /* from, to, most */
	SYS_ANONMMAP, /* length */
	SYS_NAP, /* milliseconds; ends early if it has to */
	SYS_HOSTSLEEP, /* milliseconds, then from, to, length to echo; ends when it ends */
	SYS_FLOOD, /* to, length, times */
	SYS_FAIL, /* errno */
	SYS_ARGS,
	SYS_COUNT, /* which */
	SYS_COMMAND, /* to */
	SYS_HOSTPID,
	SYS_HOLD, /* path: keeps its CPU until the host has this file, or for some time */
	SYS_LATER, /* signal, milliseconds; it comes whether the process is there or not */
	SYS_END = 600
};

#define O_CLOEXEC_ 0x400000
#define ARGS 9 /* of the longest argument structure, __syscall's */
#define MOST (16 << 20)

static void *
owner(void)
{

	return fake_here("a copy")->proc->owner;
}

static int
copyin(uint64_t from, void *to, size_t len)
{

	return rumpuser_sp_copyin(owner(), (const void *)from, to, len);
}

static int
copyout(const void *from, uint64_t to, size_t len)
{

	return rumpuser_sp_copyout(owner(), from, (void *)to, len);
}

/* NULL if a client asks for too much. */
static void *
room(uint64_t len)
{

	return len <= MOST ? malloc(len + 1) : NULL;
}

static int
echo(uint64_t from, uint64_t to, uint64_t len)
{
	void *bytes = room(len);
	int error;

	if (bytes == NULL)
		return E_NOMEM;
	if ((error = copyin(from, bytes, len)) == 0)
		error = copyout(bytes, to, len);
	free(bytes);
	return error;
}

static int
echo_string(uint64_t from, uint64_t to, uint64_t most, long *retval)
{
	char *text = room(most);
	size_t len = most;
	int error;

	if (text == NULL)
		return E_NOMEM;
	text[most] = 'x';
	error = rumpuser_sp_copyinstr(owner(), (const void *)from, text, &len);
	if (text[most] != 'x' || len > most)
		fake_panic("a string longer than asked for");
	if (error == 0 && (len == 0 || memchr(text, 0, len) != text + len - 1))
		fake_panic("a string without its NUL, or behind it");
	if (error == 0) {
		*retval = (long)len;
		error = rumpuser_sp_copyoutstr(owner(), text, (void *)to, &len);
	}
	free(text);
	return error;
}

static int
flood(uint64_t to, uint64_t len, uint64_t times)
{
	char *bytes = room(len);
	int error = 0;

	if (bytes == NULL)
		return E_NOMEM;
	for (uint64_t time = 0; error == 0 && time < times; time++) {
		memset(bytes, (int)time, len);
		error = copyout(bytes, to, len);
	}
	free(bytes);
	return error;
}

/* Their number, and that the block may be written to. */
static void
digest(uint64_t *args, long *retval)
{

	for (int at = 0; at < ARGS; at++) {
		retval[0] += (long)(args[at] * (uint64_t)(at + 1));
		args[at] = ~args[at];
	}
	retval[1] = (long)~args[ARGS - 1];
}

static int
nap(long ms)
{
	struct rumpuser_cv *cv;
	int error;

	rumpuser_cv_init(&cv);
	rumpuser_mutex_enter(fake_lock);
	error = fake_sleep(cv, ms);
	rumpuser_mutex_exit(fake_lock);
	rumpuser_cv_destroy(cv);
	return error == E_WOULDBLOCK ? 0 : error;
}

/*
 * As in the real one: what the pause returns does not matter, only whether the time is over. Nothing of the
 * call is in the kernel meanwhile, so it may be left there.
 */
static int
nanosleep_call(struct lwp *l, uint64_t from)
{
	struct timespec time, now, end;
	int error;

	if ((error = copyin(from, &time, sizeof(time))) != 0)
		return error;
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += time.tv_sec;
	end.tv_nsec += time.tv_nsec;
	do {
		l->in_call = false;
		(void)rumpuser_clock_sleep(0, time.tv_sec, time.tv_nsec);
		l->in_call = true;
		clock_gettime(CLOCK_MONOTONIC, &now);
		time.tv_sec = end.tv_sec - now.tv_sec - 1;
		time.tv_nsec = end.tv_nsec - now.tv_nsec + 1000000000;
		while (time.tv_nsec >= 1000000000) {
			time.tv_sec++;
			time.tv_nsec -= 1000000000;
		}
	} while (time.tv_sec >= 0 && (time.tv_sec > 0 || time.tv_nsec > 0));
	return 0;
}

/* A signal that comes later, from a thread of the kernel's own, to whoever was the owner then. */
struct later {
	void *owner;
	int signo;
	long ms;
};

static void *
raise_later(void *arg)
{
	struct later *later = arg;
	struct timespec time = { later->ms / 1000, later->ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
	rumpuser__hyp.hyp_schedule();
	rumpuser_sp_raise(later->owner, later->signo);
	__atomic_add_fetch(&fake_counts.late_raises, 1, __ATOMIC_RELAXED);
	rumpuser__hyp.hyp_unschedule();
	free(later);
	return NULL;
}

static int
arm(void *owner, int signo, long ms)
{
	struct later *later = malloc(sizeof(*later));
	pthread_t thread;

	if (later == NULL)
		return E_NOMEM;
	*later = (struct later){ owner, signo, ms };
	if (pthread_create(&thread, NULL, raise_later, later) != 0)
		fake_panic("no thread for a signal");
	pthread_detach(thread);
	return 0;
}

static int
count(uint64_t which, long *retval)
{
	const struct counts *counts = &fake_counts;
	const long all[] = { counts->procs, counts->lwps, counts->own_lwps, counts->fdtabs,
	    counts->pipes, counts->rforks[0], counts->rforks[1], counts->rforks[2],
	    counts->sleepers, counts->calls, counts->most_away, counts->away,
	    counts->late_raises };

	if (which >= sizeof(all) / sizeof(all[0]))
		return E_INVAL;
	rumpuser_mutex_enter(fake_lock);
	retval[0] = all[which];
	rumpuser_mutex_exit(fake_lock);
	return 0;
}

static int
signal_to(pid_t pid, int signo)
{
	struct proc *p;

	rumpuser_mutex_enter(fake_lock);
	if ((p = fake_find(pid)) != NULL && p->owner != NULL)
		rumpuser_sp_raise(p->owner, signo);
	rumpuser_mutex_exit(fake_lock);
	return p != NULL ? 0 : E_SRCH;
}

/* As a long call of the real one: it never sleeps, and nobody takes its CPU away. */
static int
hold(uint64_t from)
{
	char path[256];
	size_t len = sizeof(path);
	int error;

	if ((error = rumpuser_sp_copyinstr(owner(), (const void *)from, path, &len)) != 0)
		return error;
	fprintf(stderr, "fake: a CPU is held\n");
	for (int turn = 0; turn < 6000 && access(path, F_OK) != 0; turn++)
		usleep(10000);
	return 0;
}

/* The first from there on, or MAX_FDS. With the lock. */
static int
free_fd(struct fdtab *fds, int from)
{
	int fd = from;

	while (fd < MAX_FDS && fds->files[fd] != NULL)
		fd++;
	return fd;
}

static int
make_pipe(struct fdtab *fds, bool cloexec, long *retval)
{
	struct pipe *pipe;

	rumpuser_mutex_enter(fake_lock);
	if (free_fd(fds, free_fd(fds, 0) + 1) >= MAX_FDS) {
		rumpuser_mutex_exit(fake_lock);
		return E_MFILE;
	}
	if ((pipe = calloc(1, sizeof(*pipe))) == NULL)
		fake_panic("out of memory");
	rumpuser_cv_init(&pipe->changed);
	fake_counts.pipes++;
	for (int end = 0; end < 2; end++) {
		int fd = free_fd(fds, 0);
		struct file *file = calloc(1, sizeof(*file));

		if (file == NULL)
			fake_panic("out of memory");
		*file = (struct file){ .refs = 1, .pipe = pipe, .end = end };
		pipe->ends[end] = 1;
		fds->files[fd] = file;
		fds->cloexec[fd] = cloexec;
		retval[end] = fd;
	}
	rumpuser_mutex_exit(fake_lock);
	return 0;
}

/* A pipe's end, held for a call. It is let go by putting it into a descriptor that is closed. */
static struct file *
hold_end(struct fdtab *fds, uint64_t fd, int end)
{
	struct file *file = fd < MAX_FDS ? fds->files[fd] : NULL;

	if (file == NULL || file->pipe == NULL || file->end != end)
		return NULL;
	file->refs++;
	return file;
}

static void
let_go(struct file *file)
{
	struct fdtab one = { .files = { file } };

	fake_close(&one, 0);
}

static int
read_pipe(struct fdtab *fds, uint64_t fd, uint64_t to, uint64_t len, long *retval)
{
	struct file *file;
	struct pipe *pipe;
	char bytes[sizeof(pipe->bytes)];
	size_t taken = 0;
	int error = 0;

	rumpuser_mutex_enter(fake_lock);
	if ((file = hold_end(fds, fd, 0)) == NULL) {
		rumpuser_mutex_exit(fake_lock);
		return E_BADF;
	}
	pipe = file->pipe;
	while (error == 0 && pipe->len == 0 && pipe->ends[1] > 0)
		error = fake_sleep(pipe->changed, -1);
	while (error == 0 && taken < len && pipe->len > 0) {
		bytes[taken++] = pipe->bytes[pipe->from];
		pipe->from = (pipe->from + 1) % sizeof(pipe->bytes);
		pipe->len--;
	}
	rumpuser_cv_broadcast(pipe->changed);
	let_go(file);
	rumpuser_mutex_exit(fake_lock);
	if (error == 0 && taken > 0)
		error = copyout(bytes, to, taken);
	*retval = (long)taken;
	return error;
}

static int
write_pipe(struct fdtab *fds, uint64_t fd, uint64_t from, uint64_t len, long *retval)
{
	struct file *file;
	struct pipe *pipe;
	char *bytes = room(len);
	size_t put = 0;
	int error;

	if (bytes == NULL)
		return E_NOMEM;
	if ((error = copyin(from, bytes, len)) != 0) {
		free(bytes);
		return error;
	}
	rumpuser_mutex_enter(fake_lock);
	if ((file = hold_end(fds, fd, 1)) == NULL) {
		rumpuser_mutex_exit(fake_lock);
		free(bytes);
		return E_BADF;
	}
	pipe = file->pipe;
	while (error == 0 && put < len) {
		if (pipe->ends[0] == 0) {
			error = E_PIPE;
		} else if (pipe->len == sizeof(pipe->bytes)) {
			error = fake_sleep(pipe->changed, -1);
		} else {
			pipe->bytes[(pipe->from + pipe->len++) % sizeof(pipe->bytes)] = bytes[put++];
			if (put == len || pipe->len == sizeof(pipe->bytes))
				rumpuser_cv_broadcast(pipe->changed);
		}
	}
	let_go(file);
	rumpuser_mutex_exit(fake_lock);
	free(bytes);
	*retval = (long)put;
	return error;
}

static int
close_fd(struct fdtab *fds, uint64_t fd)
{
	int error = E_BADF;

	rumpuser_mutex_enter(fake_lock);
	if (fd < MAX_FDS && fds->files[fd] != NULL) {
		fake_close(fds, (int)fd);
		error = 0;
	}
	rumpuser_mutex_exit(fake_lock);
	return error;
}

static int
invoke(struct proc *p, int number, uint64_t *args, long *retval)
{
	void *mapped;
	int error;

	switch (number) {
	case SYS_READ:
		return read_pipe(p->fds, args[0], args[1], args[2], retval);
	case SYS_WRITE:
		return write_pipe(p->fds, args[0], args[1], args[2], retval);
	case SYS_CLOSE:
		return close_fd(p->fds, args[0]);
	case SYS_GETPID:
		retval[0] = p->pid;
		return 0;
	case SYS_GETPPID:
		retval[0] = p->parent;
		return 0;
	case SYS_KILL:
		return signal_to((pid_t)args[0], (int)args[1]);
	case SYS_PIPE:
		return make_pipe(p->fds, false, retval);
	case SYS_PIPE2:
		error = make_pipe(p->fds, (args[1] & O_CLOEXEC_) != 0, retval);
		if (error != 0)
			return error;
		int fds[2] = { (int)retval[0], (int)retval[1] };
		return copyout(fds, args[0], sizeof(fds));
	case SYS_REBOOT:
		return rump_fake_reboot((int)args[0]);
	case SYS_ECHO:
		return echo(args[0], args[1], args[2]);
	case SYS_ECHOSTR:
		return echo_string(args[0], args[1], args[2], retval);
	case SYS_ANONMMAP:
		error = rumpuser_sp_anonmmap(p->owner, args[0], &mapped);
		retval[0] = error == 0 ? (long)mapped : -1;
		return error;
	case SYS_NANOSLEEP:
		return nanosleep_call(fake_here("nanosleep"), args[0]);
	case SYS_LATER:
		return arm(p->owner, (int)args[0], (long)args[1]);
	case SYS_NAP:
		return nap((long)args[0]);
	case SYS_HOSTSLEEP:
		rumpuser_clock_sleep(0, (int64_t)args[0] / 1000, (long)args[0] % 1000 * 1000000);
		return echo(args[1], args[2], args[3]);
	case SYS_FLOOD:
		return flood(args[0], args[1], args[2]);
	case SYS_FAIL:
		return (int)args[0];
	case SYS_ARGS:
		digest(args, retval);
		return 0;
	case SYS_COUNT:
		return count(args[0], retval);
	case SYS_COMMAND:
		return copyout(p->comm, args[0], sizeof(p->comm));
	case SYS_HOSTPID:
		retval[0] = getpid();
		return 0;
	case SYS_HOLD:
		return hold(args[0]);
	default:
		return E_NOSYS;
	}
}

static int
hyp_syscall(int number, void *args, long *retval)
{
	struct lwp *l = fake_here("syscall");
	uint64_t *slots = args;
	int error;

	if (number < 0)
		fake_panic("syscall %d", number);
	if (number >= SYS_END)
		return E_NOSYS;
	if (l->proc->owner == NULL)
		fake_panic("syscall %d of no client", number);
	if (l->wexit)
		fake_panic("syscall %d on a released lwp", number);
	if (l->in_call)
		fake_panic("syscall %d in a call", number);
	/* Whatever the call, all of the longest block is there. */
	for (int at = 0; at < ARGS; at++)
		*(volatile uint64_t *)&slots[at] = slots[at];
	retval[0] = retval[1] = 0;
	__atomic_add_fetch(&fake_counts.calls, 1, __ATOMIC_RELAXED);
	l->in_call = true;
	error = invoke(l->proc, number, slots, retval);
	if (fake_here("the end of a call") != l)
		fake_panic("a call ends on another lwp than it began on");
	l->in_call = false;
	return error;
}

static pid_t
hyp_getpid(void)
{

	return fake_here("getpid")->proc->pid;
}

static void
hyp_lwpexit(void)
{
	struct lwp *here = fake_here("lwpexit");
	struct proc *p = here->proc;

	if (p->owner == NULL)
		fake_panic("lwpexit of init");
	rumpuser_mutex_enter(fake_lock);
	for (struct lwp *l = p->lwps; l != NULL; l = l->next) {
		if (l == here)
			continue;
		l->qexit = true;
		if (l->sleeps_on != NULL)
			rumpuser_cv_broadcast(l->sleeps_on);
	}
	p->lwpexit = true;
	rumpuser_cv_broadcast(p->waitcv);
	rumpuser_mutex_exit(fake_lock);
}

static void
hyp_execnotify(const char *comm)
{
	struct proc *p = fake_here("execnotify")->proc;

	rumpuser_mutex_enter(fake_lock);
	if (p->nlwps != 1 || !p->lwpexit)
		fake_panic("execnotify with %d lwps, lwpexit %d", p->nlwps, p->lwpexit);
	for (int fd = 0; fd < MAX_FDS; fd++) {
		if (p->fds->files[fd] != NULL && p->fds->cloexec[fd])
			fake_close(p->fds, fd);
	}
	p->lwpexit = false;
	snprintf(p->comm, sizeof(p->comm), "%s", comm);
	rumpuser_mutex_exit(fake_lock);
}

/* Asks for the server. FAKE_FAIL=server has it fail. */
int
rump_init_server(const char *url)
{
	const char *value = getenv("FAKE_FAIL");

	if (value != NULL && strcmp(value, "server") == 0)
		return E_NOMEM;
	return rumpuser_sp_init(url, "NetBSD", "7.99.34", "amd64");
}

__attribute__((constructor)) static void
attach(void)
{

	rump_sysproxy_ops = (struct sysproxy_ops){
		.fini = rumpuser_sp_fini,
		.getpid = hyp_getpid,
		.syscall = hyp_syscall,
		.rfork = fake_rfork,
		.lwpexit = hyp_lwpexit,
		.execnotify = hyp_execnotify,
	};
}
