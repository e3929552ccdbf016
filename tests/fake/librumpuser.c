/* The stand-in's hypervisor: host waits, each between the kernel's two upcalls, and nothing else. */
#define _GNU_SOURCE
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct rumpuser_hyperup rumpuser__hyp;

static _Thread_local struct lwp *curlwp;

void
fake_panic(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	flockfile(stderr);
	fprintf(stderr, "fake: panic: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	funlockfile(stderr);
	va_end(args);
	abort();
}

int
rumpuser_init(int version, const struct rumpuser_hyperup *hyp)
{

	if (version != HYPERVERSION)
		fake_panic("version %d of the upcalls", version);
	rumpuser__hyp = *hyp;
	return 0;
}

struct lwp *
rumpuser_curlwp(void)
{

	return curlwp;
}

void
rumpuser_curlwp_set(struct lwp *l)
{

	curlwp = l;
}

struct rumpuser_mtx {
	pthread_mutex_t mutex;
	struct lwp *owner;
};

struct rumpuser_cv {
	pthread_cond_t cond;
};

void
rumpuser_mutex_init(struct rumpuser_mtx **mtx)
{

	if ((*mtx = calloc(1, sizeof(**mtx))) == NULL)
		fake_panic("out of memory");
	pthread_mutex_init(&(*mtx)->mutex, NULL);
}

void
rumpuser_mutex_enter(struct rumpuser_mtx *mtx)
{
	int nlocks;

	if (pthread_mutex_trylock(&mtx->mutex) != 0) {
		rumpuser__hyp.hyp_backend_unschedule(0, &nlocks, NULL);
		pthread_mutex_lock(&mtx->mutex);
		rumpuser__hyp.hyp_backend_schedule(nlocks, NULL);
	}
	mtx->owner = curlwp;
}

/* With whatever CPU the thread has. */
void
rumpuser_mutex_enter_nowrap(struct rumpuser_mtx *mtx)
{

	pthread_mutex_lock(&mtx->mutex);
	mtx->owner = curlwp;
}

void
rumpuser_mutex_exit(struct rumpuser_mtx *mtx)
{

	if (mtx->owner != curlwp)
		fake_panic("mutex released by who does not have it");
	mtx->owner = NULL;
	pthread_mutex_unlock(&mtx->mutex);
}

void
rumpuser_cv_init(struct rumpuser_cv **cv)
{
	pthread_condattr_t attr;

	if ((*cv = calloc(1, sizeof(**cv))) == NULL)
		fake_panic("out of memory");
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&(*cv)->cond, &attr);
	pthread_condattr_destroy(&attr);
}

void
rumpuser_cv_destroy(struct rumpuser_cv *cv)
{

	pthread_cond_destroy(&cv->cond);
	free(cv);
}

void
rumpuser_cv_wait(struct rumpuser_cv *cv, struct rumpuser_mtx *mtx)
{

	(void)rumpuser_cv_timedwait(cv, mtx, -1);
}

void
rumpuser_cv_wait_nowrap(struct rumpuser_cv *cv, struct rumpuser_mtx *mtx)
{

	mtx->owner = NULL;
	pthread_cond_wait(&cv->cond, &mtx->mutex);
	mtx->owner = curlwp;
}

/* Whether the time was up; a negative one never is. */
bool
rumpuser_cv_timedwait(struct rumpuser_cv *cv, struct rumpuser_mtx *mtx, long ms)
{
	struct timespec until;
	int nlocks, error;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	rumpuser__hyp.hyp_backend_unschedule(0, &nlocks, mtx);
	mtx->owner = NULL;
	if (ms < 0)
		error = pthread_cond_wait(&cv->cond, &mtx->mutex);
	else
		error = pthread_cond_timedwait(&cv->cond, &mtx->mutex, &until);
	mtx->owner = curlwp;
	rumpuser__hyp.hyp_backend_schedule(nlocks, mtx);
	return error == ETIMEDOUT;
}

void
rumpuser_cv_broadcast(struct rumpuser_cv *cv)
{

	pthread_cond_broadcast(&cv->cond);
}

int
rumpuser_clock_sleep(int clock, int64_t sec, long nsec)
{
	struct timespec time = { sec, nsec };
	int nlocks;

	if (clock != 0)
		fake_panic("a sleep by clock %d", clock);
	rumpuser__hyp.hyp_backend_unschedule(0, &nlocks, NULL);
	while (nanosleep(&time, &time) == -1 && errno == EINTR)
		continue;
	rumpuser__hyp.hyp_backend_schedule(nlocks, NULL);
	return 0;
}

/* What the kernel asks for as it boots. */
int
rumpuser_getparam(const char *name, void *buf, size_t len)
{
	const char *value = getenv("RUMP_NCPU");

	if (strcmp(name, "_RUMPUSER_NCPU") != 0)
		return E_NOENT;
	snprintf(buf, len, "%s", value != NULL ? value : "1");
	return 0;
}

void
rumpuser_exit(int status)
{

	exit(status);
}

/* Going to the background: the parent waits for a word on a socket, and ends with it. */
static int daemon_sockets[2];
static bool is_daemonizing;

int
rumpuser_daemonize_begin(void)
{
	int error;

	if (is_daemonizing || socketpair(AF_UNIX, SOCK_STREAM, 0, daemon_sockets) == -1)
		return E_INVAL;
	is_daemonizing = true;
	switch (fork()) {
	case -1:
		return E_NOMEM;
	case 0:
		close(daemon_sockets[0]);
		setsid();
		return 0;
	default:
		close(daemon_sockets[1]);
		if (recv(daemon_sockets[0], &error, sizeof(error), 0) != sizeof(error))
			error = E_SRCH;
		_exit(error);
	}
}

int
rumpuser_daemonize_done(int error)
{
	int fd;

	if (!is_daemonizing)
		return E_NOENT;
	if (error == 0) {
		if ((fd = open("/dev/null", O_RDWR)) == -1)
			return E_NOENT;
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		if (fd > 2)
			close(fd);
	}
	if (send(daemon_sockets[1], &error, sizeof(error), MSG_NOSIGNAL) != sizeof(error))
		return E_PIPE;
	close(daemon_sockets[1]);
	return 0;
}

/* The server under test has these. */
#define NOT_HERE fake_panic("%s of librumpuser was called: its place was not taken", __func__)

int
rumpuser_sp_init(const char *url, const char *ostype, const char *osrelease, const char *machine)
{

	(void)url, (void)ostype, (void)osrelease, (void)machine;
	NOT_HERE;
}

void
rumpuser_sp_fini(void *owner)
{

	(void)owner;
	NOT_HERE;
}

int
rumpuser_sp_copyin(void *owner, const void *from, void *to, size_t len)
{

	(void)owner, (void)from, (void)to, (void)len;
	NOT_HERE;
}

int
rumpuser_sp_copyinstr(void *owner, const void *from, void *to, size_t *len)
{

	(void)owner, (void)from, (void)to, (void)len;
	NOT_HERE;
}

int
rumpuser_sp_copyout(void *owner, const void *from, void *to, size_t len)
{

	(void)owner, (void)from, (void)to, (void)len;
	NOT_HERE;
}

int
rumpuser_sp_copyoutstr(void *owner, const void *from, void *to, size_t *len)
{

	(void)owner, (void)from, (void)to, (void)len;
	NOT_HERE;
}

int
rumpuser_sp_anonmmap(void *owner, size_t len, void **addr)
{

	(void)owner, (void)len, (void)addr;
	NOT_HERE;
}

int
rumpuser_sp_raise(void *owner, int signo)
{

	(void)owner, (void)signo;
	NOT_HERE;
}
