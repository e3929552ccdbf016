/*
 * The stand-in's kernel: virtual CPUs that exclude, lwps and processes that know who may do what with
 * them, descriptors, and boot.
 */
#define _GNU_SOURCE
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CPUS 256
#define RB_HALT 8

struct sysproxy_ops rump_sysproxy_ops;
struct rumpuser_mtx *fake_lock;
struct counts fake_counts;

static struct proc *procs, *initproc;
static pid_t next_pid = 1;
static bool is_up;

static int ncpu;
static struct lwp *on_cpu[MAX_CPUS];
static struct rumpuser_mtx *cpu_lock;
static struct rumpuser_cv *cpu_free;

static void *
alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (memory == NULL)
		fake_panic("out of memory");
	return memory;
}

static int
free_cpu(int wanted)
{

	if (on_cpu[wanted] == NULL)
		return wanted;
	for (int cpu = 0; cpu < ncpu; cpu++) {
		if (on_cpu[cpu] == NULL)
			return cpu;
	}
	return -1;
}

static void
take_cpu(struct lwp *l)
{
	int cpu;

	rumpuser_mutex_enter_nowrap(cpu_lock);
	if (l->cpu != -1)
		fake_panic("lwp %d:%d has a CPU and asks for one", l->proc->pid, l->lid);
	while ((cpu = free_cpu(l->last_cpu)) == -1)
		rumpuser_cv_wait_nowrap(cpu_free, cpu_lock);
	on_cpu[cpu] = l;
	l->cpu = l->last_cpu = cpu;
	rumpuser_mutex_exit(cpu_lock);
}

static void
give_cpu(struct lwp *l)
{

	rumpuser_mutex_enter_nowrap(cpu_lock);
	if (l->cpu == -1 || on_cpu[l->cpu] != l)
		fake_panic("lwp %d:%d leaves a CPU it has not", l->proc->pid, l->lid);
	on_cpu[l->cpu] = NULL;
	l->cpu = -1;
	rumpuser_cv_broadcast(cpu_free);
	rumpuser_mutex_exit(cpu_lock);
}

static void
pass_cpu(struct lwp *from, struct lwp *to)
{

	rumpuser_mutex_enter_nowrap(cpu_lock);
	if (to->cpu != -1)
		fake_panic("switch to lwp %d:%d, which has a CPU", to->proc->pid, to->lid);
	to->cpu = to->last_cpu = from->cpu;
	on_cpu[to->cpu] = to;
	from->cpu = -1;
	rumpuser_mutex_exit(cpu_lock);
	rumpuser_curlwp_set(to);
}

/* Puts a thread that is outside of the kernel on an lwp that is on no other, and takes it off. */
void
rump_lwproc_curlwp_set(struct lwp *l)
{

	if (rumpuser_curlwp() != NULL)
		fake_panic("a thread that is on an lwp is put on another");
	rumpuser_mutex_enter_nowrap(cpu_lock);
	if (l->running || l->cpu != -1 || l->state != LWP_LIVE)
		fake_panic("a thread is put on lwp %d:%d, which is in use", l->proc->pid, l->lid);
	l->running = true;
	rumpuser_mutex_exit(cpu_lock);
	rumpuser_curlwp_set(l);
}

void
rump_lwproc_curlwp_clear(struct lwp *l)
{

	if (rumpuser_curlwp() != l || l->cpu != -1)
		fake_panic("a thread is taken off an lwp it is not on, or inside of the kernel");
	l->running = false;
	rumpuser_curlwp_set(NULL);
}

/* The lwp this thread is on, which has to have a CPU. */
struct lwp *
fake_here(const char *who)
{
	struct lwp *l = rumpuser_curlwp();

	if (l == NULL)
		fake_panic("%s outside of the kernel", who);
	if (l->state != LWP_LIVE)
		fake_panic("%s on an lwp after its release", who);
	if (l->away || l->cpu == -1)
		fake_panic("%s without a CPU", who);
	if (!l->running && !l->clear)
		fake_panic("%s on an lwp that does not run", who);
	return l;
}

/* Called with the lock, as are the next ones. */
static struct lwp *
make_lwp(struct proc *p)
{
	struct lwp *l = alloc(sizeof(*l));

	l->state = LWP_LIVE;
	l->proc = p;
	l->lid = ++p->next_lid;
	l->refs = 1;
	l->cpu = -1;
	l->last_cpu = l->lid % ncpu;
	l->next = p->lwps;
	p->lwps = l;
	p->nlwps++;
	*(p == initproc ? &fake_counts.own_lwps : &fake_counts.lwps) += 1;
	return l;
}

static void
drop_file(struct file *file)
{
	struct pipe *pipe = file->pipe;

	if (--file->refs > 0)
		return;
	if (pipe != NULL) {
		pipe->ends[file->end]--;
		rumpuser_cv_broadcast(pipe->changed);
		if (pipe->ends[0] + pipe->ends[1] == 0) {
			rumpuser_cv_destroy(pipe->changed);
			free(pipe);
			fake_counts.pipes--;
		}
	}
	free(file);
}

void
fake_close(struct fdtab *fds, int fd)
{
	struct file *file = fds->files[fd];

	fds->files[fd] = NULL;
	fds->cloexec[fd] = false;
	drop_file(file);
}

static struct fdtab *
new_fds(void)
{
	struct fdtab *fds = alloc(sizeof(*fds));

	fds->refs = 1;
	fake_counts.fdtabs++;
	return fds;
}

/* What a server asks of NetBSD's kernel by name: its bound of files, and an end for the timers of processes. */
unsigned int rumpns_maxfiles = 1772;
void *rumpns_proc_lock = &rumpns_proc_lock;
static bool has_proc_lock;
static void (*exit_hook)(void *, void *);
static void *exit_arg;
static struct proc *timers_freed;

void *
rumpns_exithook_establish(void (*hook)(void *, void *), void *arg)
{

	exit_hook = hook;
	exit_arg = arg;
	return &exit_hook;
}

void
rumpns_timers_free(void *p, int which)
{

	if (which != 0)
		fake_panic("timers of kind %d", which);
	timers_freed = p;
}

void
rumpns_mutex_enter(void *lock)
{

	if (lock != rumpns_proc_lock || has_proc_lock)
		fake_panic("a lock that is not that of processes, or that is taken");
	has_proc_lock = true;
}

void
rumpns_mutex_exit(void *lock)
{

	if (lock != rumpns_proc_lock || !has_proc_lock)
		fake_panic("a lock that is not that of processes, or that is free");
	has_proc_lock = false;
}

static void
free_proc(struct proc *p)
{
	struct proc **at;

	if (p == initproc)
		fake_panic("the last lwp of init was released");
	if (exit_hook != NULL) {
		exit_hook(p, exit_arg);
		if (timers_freed != p)
			fake_panic("the timers of a process were not freed");
	}
	if (--p->fds->refs == 0) {
		for (int fd = 0; fd < MAX_FDS; fd++) {
			if (p->fds->files[fd] != NULL)
				fake_close(p->fds, fd);
		}
		free(p->fds);
		fake_counts.fdtabs--;
	}
	for (at = &procs; *at != p; at = &(*at)->next)
		continue;
	*at = p->next;
	rumpuser_cv_destroy(p->waitcv);
	fake_counts.procs--;
	free(p);
}

/* Its memory stays, so that whoever uses it still is found out. */
static void
free_lwp(struct lwp *l)
{
	struct proc *p = l->proc;
	struct lwp **at;

	if (l->in_call || l->sleeps_on != NULL)
		fake_panic("lwp %d:%d is released in a call", p->pid, l->lid);
	for (at = &p->lwps; *at != l; at = &(*at)->next)
		continue;
	*at = l->next;
	l->state = LWP_FREED;
	*(p == initproc ? &fake_counts.own_lwps : &fake_counts.lwps) -= 1;
	if (--p->nlwps == 0)
		free_proc(p);
}

struct proc *
fake_find(pid_t pid)
{
	struct proc *p;

	for (p = procs; p != NULL && p->pid != pid; p = p->next)
		continue;
	return p;
}

static void
schedule(void)
{
	struct lwp *l = rumpuser_curlwp();

	if (l != NULL) {
		if (l->state != LWP_LIVE)
			fake_panic("schedule on an lwp after its release");
		if (l->away || l->cpu != -1)
			fake_panic("schedule inside of the kernel");
		take_cpu(l);
		return;
	}
	/* A passing lwp, for a thread that has none. */
	struct lwp stranger = { .state = LWP_LIVE, .proc = initproc, .running = true, .cpu = -1 };

	take_cpu(&stranger);
	rumpuser_curlwp_set(&stranger);
	rumpuser_mutex_enter(fake_lock);
	l = make_lwp(initproc);
	rumpuser_mutex_exit(fake_lock);
	l->running = true;
	l->refs = 0;
	l->wexit = true;
	pass_cpu(&stranger, l);
}

static void
unschedule(void)
{
	struct lwp *l = fake_here("unschedule");

	if (l->in_call)
		fake_panic("unschedule in a call");
	if (l->wexit) {
		struct lwp stranger =
		    { .state = LWP_LIVE, .proc = initproc, .running = true, .cpu = -1 };

		pass_cpu(l, &stranger);
		rumpuser_mutex_enter(fake_lock);
		free_lwp(l);
		rumpuser_mutex_exit(fake_lock);
		give_cpu(&stranger);
		rumpuser_curlwp_set(NULL);
		return;
	}
	if (l->clear) {
		rumpuser_curlwp_set(NULL);
		l->clear = false;
	}
	give_cpu(l);
}

static void
backend_unschedule(int keep, int *nlocks, void *interlock)
{
	struct lwp *l = fake_here("backend_unschedule");

	if (nlocks == NULL)
		fake_panic("backend_unschedule without a place for the number of locks");
	if (keep != 0)
		fake_panic("backend_unschedule of %d locks", keep);
	/* Some number that has to come back. */
	l->biglocks = (l->biglocks + 1) % 3;
	*nlocks = l->biglocks;
	l->interlock = interlock;
	l->away = true;
	long away = __atomic_add_fetch(&fake_counts.away, 1, __ATOMIC_RELAXED);
	if (away > fake_counts.most_away)
		fake_counts.most_away = away;
	give_cpu(l);
}

static void
backend_schedule(int nlocks, void *interlock)
{
	struct lwp *l = rumpuser_curlwp();

	if (l == NULL || !l->away)
		fake_panic("backend_schedule without a backend_unschedule");
	if (nlocks != l->biglocks || interlock != l->interlock)
		fake_panic("backend_schedule with other locks than backend_unschedule gave");
	take_cpu(l);
	l->away = false;
	__atomic_sub_fetch(&fake_counts.away, 1, __ATOMIC_RELAXED);
}

static void
lwproc_switch(struct lwp *to)
{
	struct lwp *l = fake_here("switch");

	if (l->clear)
		fake_panic("switch after switch to nothing");
	if (l->in_call)
		fake_panic("switch in a call");
	if (to == NULL) {
		if (l->wexit)
			fake_panic("switch to nothing from a released lwp");
		l->running = false;
		l->clear = true;
		return;
	}
	rumpuser_mutex_enter(fake_lock);
	if (to->state != LWP_LIVE)
		fake_panic("switch to an lwp after its release");
	if (to->running)
		fake_panic("switch to lwp %d:%d, which is running%s", to->proc->pid, to->lid,
		    to == l ? " here" : "");
	to->running = true;
	rumpuser_mutex_exit(fake_lock);
	pass_cpu(l, to);
	l->running = false;
	if (l->wexit) {
		rumpuser_mutex_enter(fake_lock);
		free_lwp(l);
		rumpuser_mutex_exit(fake_lock);
	}
}

static void
lwproc_release(void)
{
	struct lwp *l = fake_here("release");

	if (l->refs == 0 || l->wexit)
		fake_panic("release of an lwp that is released");
	l->refs = 0;
	l->wexit = true;
}

static struct lwp *
lwproc_curlwp(void)
{
	struct lwp *l = fake_here("curlwp");

	return l->wexit ? NULL : l;
}

static int
lwproc_newlwp(pid_t pid)
{
	struct proc *p;
	struct lwp *l;

	(void)fake_here("newlwp");
	rumpuser_mutex_enter(fake_lock);
	if ((p = fake_find(pid)) == NULL || p->lwpexit) {
		rumpuser_mutex_exit(fake_lock);
		return p == NULL ? E_SRCH : E_BUSY;
	}
	l = make_lwp(p);
	rumpuser_mutex_exit(fake_lock);
	lwproc_switch(l);
	return 0;
}

/* 0 shares the descriptors, 1 copies them, 2 starts without. */
int
fake_rfork(void *owner, int flags, const char *comm)
{
	struct proc *parent = fake_here("rfork")->proc, *p;
	struct lwp *l;

	if (flags < 0 || flags > 2)
		return E_INVAL;
	if (parent == initproc && flags != 2)
		fake_panic("rfork from init with flags %d", flags);
	if (owner == NULL)
		fake_panic("rfork without an owner");
	p = alloc(sizeof(*p));
	rumpuser_cv_init(&p->waitcv);
	rumpuser_mutex_enter(fake_lock);
	fake_counts.rforks[flags]++;
	p->pid = ++next_pid;
	p->parent = parent->pid;
	p->owner = owner;
	snprintf(p->comm, sizeof(p->comm), "%s", comm != NULL ? comm : parent->comm);
	if (flags == 0) {
		p->fds = parent->fds;
		p->fds->refs++;
	} else {
		p->fds = new_fds();
	}
	for (int fd = 0; flags == 1 && fd < MAX_FDS; fd++) {
		if ((p->fds->files[fd] = parent->fds->files[fd]) != NULL)
			p->fds->files[fd]->refs++;
		p->fds->cloexec[fd] = parent->fds->cloexec[fd];
	}
	for (int fd = 0; parent == initproc && fd < 3; fd++) {
		p->fds->files[fd] = alloc(sizeof(struct file));
		p->fds->files[fd]->refs = 1;
	}
	p->next = procs;
	procs = p;
	fake_counts.procs++;
	l = make_lwp(p);
	rumpuser_mutex_exit(fake_lock);
	lwproc_switch(l);
	return 0;
}

/*
 * Sleeps on a condition that is under the lock. EINTR if the process's lwps are to end, EWOULDBLOCK if
 * the time is up.
 */
int
fake_sleep(struct rumpuser_cv *cv, long ms)
{
	struct lwp *l = fake_here("a sleep");
	bool is_over;

	if (l->qexit)
		return E_INTR;
	l->sleeps_on = cv;
	fake_counts.sleepers++;
	is_over = rumpuser_cv_timedwait(cv, fake_lock, ms);
	fake_counts.sleepers--;
	l->sleeps_on = NULL;
	if (l->qexit) {
		while (!l->proc->lwpexit)
			rumpuser_cv_wait(l->proc->waitcv, fake_lock);
		return E_INTR;
	}
	return is_over ? E_WOULDBLOCK : 0;
}

static pid_t
wrap_getpid(void)
{

	return rump_sysproxy_ops.getpid();
}

static int
wrap_syscall(int number, void *args, long *retval)
{

	return rump_sysproxy_ops.syscall(number, args, retval);
}

static int
wrap_rfork(void *owner, int flags, const char *comm)
{

	return rump_sysproxy_ops.rfork(owner, flags, comm);
}

static void
wrap_lwpexit(void)
{

	rump_sysproxy_ops.lwpexit();
}

static void
wrap_execnotify(const char *comm)
{

	rump_sysproxy_ops.execnotify(comm);
}

/* Boots. FAKE_FAIL=init has it fail. */
int
rump_init(void)
{
	static const struct rumpuser_hyperup upcalls = {
		.hyp_schedule = schedule,
		.hyp_unschedule = unschedule,
		.hyp_backend_unschedule = backend_unschedule,
		.hyp_backend_schedule = backend_schedule,
		.hyp_lwproc_switch = lwproc_switch,
		.hyp_lwproc_release = lwproc_release,
		.hyp_lwproc_rfork = wrap_rfork,
		.hyp_lwproc_newlwp = lwproc_newlwp,
		.hyp_lwproc_curlwp = lwproc_curlwp,
		.hyp_syscall = wrap_syscall,
		.hyp_lwpexit = wrap_lwpexit,
		.hyp_execnotify = wrap_execnotify,
		.hyp_getpid = wrap_getpid,
	};
	const char *value;
	char number[16];

	if (is_up)
		fake_panic("booted twice");
	if ((value = getenv("FAKE_FAIL")) != NULL && strcmp(value, "init") == 0)
		return E_INVAL;
	if ((value = getenv("FAKE_LIFETIME")) != NULL)
		alarm((unsigned)atoi(value));
	if (rumpuser_init(HYPERVERSION, &upcalls) != 0)
		return E_INVAL;
	if (rumpuser_getparam("_RUMPUSER_NCPU", number, sizeof(number)) != 0)
		return E_INVAL;
	ncpu = atoi(number);
	if (ncpu < 1 || ncpu > MAX_CPUS)
		return E_INVAL;
	if (rumpuser__hyp.hyp_schedule != schedule || rumpuser__hyp.hyp_syscall != wrap_syscall)
		fake_panic("librumpuser was given other upcalls");
	rumpuser_mutex_init(&fake_lock);
	rumpuser_mutex_init(&cpu_lock);
	rumpuser_cv_init(&cpu_free);
	initproc = alloc(sizeof(*initproc));
	initproc->pid = next_pid;
	initproc->fds = new_fds();
	fake_counts.fdtabs = 0;
	rumpuser_cv_init(&initproc->waitcv);
	snprintf(initproc->comm, sizeof(initproc->comm), "init");
	procs = initproc;
	/* It has one always. */
	make_lwp(initproc)->running = true;
	fake_counts.own_lwps = 0;
	is_up = true;
	value = getenv("RUMP_MEMLIMIT");
	if (getenv("RUMP_VERBOSE") != NULL)
		fprintf(stderr, "fake: booted, ncpu %d, memory %s\n", ncpu, value ? value : "-");
	return 0;
}

int
rump_daemonize_begin(void)
{

	if (is_up)
		return E_BUSY;
	return rumpuser_daemonize_begin();
}

int
rump_daemonize_done(int error)
{

	return rumpuser_daemonize_done(error);
}

/* reboot(2), on the caller's lwp. */
int
rump_fake_reboot(int howto)
{
	struct proc *p = fake_here("reboot")->proc;

	fprintf(stderr, "fake: halting with %ld processes\n", fake_counts.procs);
	rump_sysproxy_ops.fini(p->owner);
	while (howto & RB_HALT)
		rumpuser_clock_sleep(0, 10, 0);
	rumpuser_exit(0);
}

int
rump___sysimpl_reboot(int howto, char *boot)
{

	(void)boot;
	schedule();
	rump_fake_reboot(howto);
	unschedule();
	return -1;
}

int
rump_pub_etfs_register_withsize(const char *key, const char *path, int type, uint64_t from,
    uint64_t size)
{

	if (!is_up || key[0] != '/')
		return E_INVAL;
	fprintf(stderr, "fake: drive %s type %d from %llu size %llu: %s\n", key, type,
	    (unsigned long long)from, (unsigned long long)size, strrchr(path, '/') + 1);
	return 0;
}

int
rump_pub_etfs_register(const char *key, const char *path, int type)
{

	return rump_pub_etfs_register_withsize(key, path, type, 0, UINT64_MAX);
}

int
rump_pub_etfs_remove(const char *key)
{

	fprintf(stderr, "fake: no more %s\n", key);
	return 0;
}

int
rump___sysimpl_modctl(int what, void *arg)
{

	fprintf(stderr, "fake: module %d from %s\n", what, *(const char **)arg);
	return 0;
}
