/* Fork: children with their parent's files and a pipe between them; tokens spent, forged, cancelled. */
#include "stock.h"

enum { INVALID_PREFORK = 3 };

static int down[2], up[2];

/* What a child finds. Its exit status says what was wrong, 0 nothing. */
static int child(pid_t parent, int fd, int cloexec, int later)
{
	char bytes[64] = { 0 };
	pid_t pid = rump_sys_getpid();
	if (pid == parent || pid <= 1)
		return 1;
	if (rump_sys_pread(fd, bytes, 6, 0) != 6 || memcmp(bytes, "before", 6) != 0)
		return 2;
	if (rump_sys_lseek(fd, 0, SEEK_CUR) != 6 || rump_sys_write(fd, "child", 5) != 5)
		return 3;
	if (rump_sys_fcntl(cloexec, NB_F_GETFD, 0) != NB_FD_CLOEXEC)
		return 4;
	if (rump_sys_read(later, bytes, 1) != -1 || errno != NB_EBADF)
		return 5;
	rump_sys_close(down[1]);
	rump_sys_close(up[0]);
	if (rump_sys_read(down[0], bytes, sizeof bytes) != 4 || memcmp(bytes, "ping", 4) != 0)
		return 6;
	return rump_sys_write(up[1], "pong", 4) == 4 && rump_sys_close(fd) == 0 ? 0 : 7;
}

static void prefork_and_fork_init(int fd, int cloexec)
{
	char bytes[64] = { 0 };
	pid_t pid = rump_sys_getpid();
	rump_sys_pipe(down);
	rump_sys_pipe(up);
	struct rumpclient_fork *token = rumpclient_prefork();
	if (!check(token != NULL, "rumpclient_prefork"))
		return;
	int later = rump_sys_open("/dev/null", NB_O_RDWR);
	pid_t host_pid = fork();
	if (host_pid == 0)
		_exit(rumpclient_fork_init(token) == 0 ? child(pid, fd, cloexec, later) : 90);
	rump_sys_close(down[0]);
	rump_sys_close(up[1]);
	sleep_ms(50);
	check(rump_sys_write(down[1], "ping", 4) == 4, "ping to the child");
	check(rump_sys_read(up[0], bytes, sizeof bytes) == 4 && memcmp(bytes, "pong", 4) == 0,
	    "pong from it");
	int status = exit_status_of(host_pid);
	check(status == 0, "the child has the files and a pid of its own (exit status %d)", status);
	check(rump_sys_lseek(fd, 0, SEEK_CUR) == 11, "the offset is shared");
	check(rump_sys_pread(fd, bytes, 11, 0) == 11 && memcmp(bytes, "beforechild", 11) == 0,
	    "what the child wrote is there");
	check(rump_sys_getpid() == pid, "the parent is itself");
	check(rump_sys_read(up[0], bytes, sizeof bytes) == 0, "the child's end of the pipe is closed");
	rump_sys_close(down[1]);
	rump_sys_close(up[0]);
	rump_sys_close(later);
}

static void generations(int fd)
{
	pid_t children[8];
	int good = 0;
	for (int i = 0; i < 8; i++) {
		children[i] = rumpclient_fork();
		if (children[i] == 0) {
			pid_t pid = rump_sys_getpid();
			pid_t grandchild = rumpclient_fork();
			if (grandchild == 0)
				_exit(rump_sys_getpid() == pid || rump_sys_lseek(fd, 0, SEEK_CUR) != 11);
			_exit(grandchild > 0 ? exit_status_of(grandchild) : 2);
		}
	}
	for (int i = 0; i < 8; i++)
		good += children[i] > 0 && exit_status_of(children[i]) == 0;
	check(good == 8, "eight children by rumpclient_fork, each with one of its own (%d)", good);
}

struct token {
	uint32_t words[4];
};

/* The handshake of a fork by hand: 0 or the refusal's code; -1 if the server hangs up. */
static int fork_by_hand(struct token token, int cancel)
{
	struct { struct token token; int32_t cancel; } body = { token, cancel };
	int s = raw_connect();
	int answer = raw_handshake(s, HANDSHAKE_FORK, &body, sizeof body);
	if (answer > 0)
		check(is_closed_within(s, 5000), "a refused fork's connection is closed");
	close(s);
	return answer;
}

/* The token leads librumpclient's opaque structure. */
static struct token prefork(void)
{
	struct token token;
	memcpy(&token, rumpclient_prefork(), sizeof token);
	return token;
}

static void tokens(void)
{
	struct token token = prefork(), forged = token, zeros = { { 0 } };
	forged.words[3] ^= 1;
	check(fork_by_hand(forged, 0) == INVALID_PREFORK, "a forged token is refused");
	check(fork_by_hand(zeros, 0) == INVALID_PREFORK, "so are zeros");
	check(fork_by_hand(token, 0) == 0, "the true one is taken");
	check(fork_by_hand(token, 0) == INVALID_PREFORK, "once");
	token = prefork();
	check(fork_by_hand(token, 1) == -1, "a cancel is answered with a hang-up");
	check(fork_by_hand(token, 0) == INVALID_PREFORK, "a cancelled token is spent");
}

/* rumpclient_daemon: the parent is gone when its child's handshake comes. */
static void daemons(void)
{
	pid_t pid = 0;
	int ends[2];
	rump_sys_pipe(ends);
	pid_t host_pid = rumpclient_fork();
	if (host_pid == 0) {
		rump_sys_close(ends[0]);
		if (rumpclient_daemon(0, 1) != 0)
			_exit(1);
		pid = rump_sys_getpid();
		_exit(rump_sys_write(ends[1], &pid, sizeof pid) != sizeof pid);
	}
	rump_sys_close(ends[1]);
	check(exit_status_of(host_pid) == 0 && rump_sys_read(ends[0], &pid, sizeof pid) == sizeof pid &&
	    pid > 1 && pid != rump_sys_getpid(), "rumpclient_daemon: pid %d", pid);
	check(rump_sys_read(ends[0], &pid, 1) == 0, "and it has gone");
	rump_sys_close(ends[0]);
}

int main(void)
{
	char name[64];
	begin("forks", 60);
	connect_to_server();
	snprintf(name, sizeof name, "/forks%d", rump_sys_getpid());
	int fd = rump_sys_open(name, NB_O_RDWR | NB_O_CREAT | NB_O_TRUNC, 0600);
	int cloexec = rump_sys_open("/dev/null", NB_O_RDWR | NB_O_CLOEXEC);
	check(fd >= 0 && cloexec >= 0 && rump_sys_write(fd, "before", 6) == 6, "a file to share");
	prefork_and_fork_init(fd, cloexec);
	generations(fd);
	tokens();
	daemons();
	check(rump_sys_getpid() > 1, "the parent is served");
	rump_sys_unlink(name);
	return end();
}
