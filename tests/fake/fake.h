/*
 * A stand-in for the rump kernel, for tests where there is none: the interface between its three
 * libraries, and what librump and librumpuser have between them.
 *
 * It has the real one's C surface and its rules: whoever breaks one of them is told so on stderr, and
 * the process aborts. What it can do is in librumpkern_sysproxy.c.
 */
#ifndef FAKE_H
#define FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct lwp;
struct rumpuser_mtx;
struct rumpuser_cv;

/* NetBSD's numbers. */
enum {
	E_NOENT = 2,
	E_SRCH = 3,
	E_INTR = 4,
	E_BADF = 9,
	E_NOMEM = 12,
	E_BUSY = 16,
	E_INVAL = 22,
	E_MFILE = 24,
	E_PIPE = 32,
	E_WOULDBLOCK = 35,
	E_NOSYS = 78
};

#define HYPERVERSION 17

struct rumpuser_hyperup {
	void (*hyp_schedule)(void);
	void (*hyp_unschedule)(void);
	void (*hyp_backend_unschedule)(int, int *, void *);
	void (*hyp_backend_schedule)(int, void *);
	void (*hyp_lwproc_switch)(struct lwp *);
	void (*hyp_lwproc_release)(void);
	int (*hyp_lwproc_rfork)(void *, int, const char *);
	int (*hyp_lwproc_newlwp)(pid_t);
	struct lwp *(*hyp_lwproc_curlwp)(void);
	int (*hyp_syscall)(int, void *, long *);
	void (*hyp_lwpexit)(void);
	void (*hyp_execnotify)(const char *);
	pid_t (*hyp_getpid)(void);
	void *hyp_spare[8];
};

/* librumpuser */
extern struct rumpuser_hyperup rumpuser__hyp;
int rumpuser_init(int, const struct rumpuser_hyperup *);
void rumpuser_mutex_init(struct rumpuser_mtx **);
void rumpuser_mutex_enter(struct rumpuser_mtx *);
void rumpuser_mutex_enter_nowrap(struct rumpuser_mtx *);
void rumpuser_mutex_exit(struct rumpuser_mtx *);
void rumpuser_cv_init(struct rumpuser_cv **);
void rumpuser_cv_destroy(struct rumpuser_cv *);
void rumpuser_cv_wait(struct rumpuser_cv *, struct rumpuser_mtx *);
void rumpuser_cv_wait_nowrap(struct rumpuser_cv *, struct rumpuser_mtx *);
bool rumpuser_cv_timedwait(struct rumpuser_cv *, struct rumpuser_mtx *, long ms);
void rumpuser_cv_broadcast(struct rumpuser_cv *);
int rumpuser_clock_sleep(int, int64_t, long);
int rumpuser_getparam(const char *, void *, size_t);
struct lwp *rumpuser_curlwp(void);
void rumpuser_curlwp_set(struct lwp *);
int rumpuser_daemonize_begin(void);
int rumpuser_daemonize_done(int);
void rumpuser_exit(int) __attribute__((noreturn));
void fake_panic(const char *, ...) __attribute__((noreturn, format(printf, 1, 2)));

int rumpuser_sp_init(const char *, const char *, const char *, const char *);
void rumpuser_sp_fini(void *);
int rumpuser_sp_copyin(void *, const void *, void *, size_t);
int rumpuser_sp_copyinstr(void *, const void *, void *, size_t *);
int rumpuser_sp_copyout(void *, const void *, void *, size_t);
int rumpuser_sp_copyoutstr(void *, const void *, void *, size_t *);
int rumpuser_sp_anonmmap(void *, size_t, void **);
int rumpuser_sp_raise(void *, int);

/* librump */
#define COMM_LEN 16
#define MAX_FDS 64

struct pipe {
	int ends[2]; /* open ones of each kind */
	size_t from, len;
	char bytes[4096];
	struct rumpuser_cv *changed;
};

struct file {
	int refs;
	struct pipe *pipe; /* NULL: the console */
	int end; /* 0 reads, 1 writes */
};

struct fdtab {
	int refs;
	struct file *files[MAX_FDS];
	bool cloexec[MAX_FDS];
};

struct proc {
	pid_t pid, parent;
	int nlwps, next_lid;
	bool lwpexit;
	void *owner;
	struct fdtab *fds;
	char comm[COMM_LEN + 1];
	struct lwp *lwps;
	struct proc *next;
	struct rumpuser_cv *waitcv;
};

enum lwp_state { LWP_LIVE = 0x11fe, LWP_FREED = 0xdead };

struct lwp {
	enum lwp_state state;
	struct proc *proc;
	int lid, refs;
	bool running; /* some thread is on it */
	bool wexit; /* goes when that thread leaves it */
	bool clear; /* that thread leaves it when it leaves the kernel */
	bool qexit; /* its sleeps end */
	bool away; /* between backend_unschedule and backend_schedule */
	bool in_call;
	int cpu, last_cpu;
	int biglocks;
	void *interlock;
	struct rumpuser_cv *sleeps_on;
	struct lwp *next;
};

/* What the sysproxy component brings. */
struct sysproxy_ops {
	void (*fini)(void *);
	pid_t (*getpid)(void);
	int (*syscall)(int, void *, long *);
	int (*rfork)(void *, int, const char *);
	void (*lwpexit)(void);
	void (*execnotify)(const char *);
};
extern struct sysproxy_ops rump_sysproxy_ops;

/* All of the kernel's state is under this. */
extern struct rumpuser_mtx *fake_lock;

struct counts {
	long procs, lwps, own_lwps, fdtabs, pipes;
	long rforks[3];
	long sleepers, calls;
	long away, most_away;
	long late_raises;
};
extern struct counts fake_counts;

struct lwp *fake_here(const char *);
int fake_sleep(struct rumpuser_cv *, long ms);
int fake_rfork(void *, int, const char *);
struct proc *fake_find(pid_t);
void fake_close(struct fdtab *, int);

#endif
