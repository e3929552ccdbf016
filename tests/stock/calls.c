/* One thread, one connection: the calls that a plain program makes. */
#include "stock.h"

static char dir[64];

/* A path in the program's directory; good until the fourth from here. */
static const char *in_dir(const char *name)
{
	static char paths[4][160];
	static int next;
	next = (next + 1) & 3;
	snprintf(paths[next], sizeof paths[next], "%s/%s", dir, name);
	return paths[next];
}

static void identity(void)
{
	register_t values[2] = { -1, -1 };
	pid_t pid = rump_sys_getpid();
	check(pid > 1 && rump_sys_getpid() == pid, "getpid is %d, twice", pid);
	check(rump_sys_getppid() != pid, "getppid is another");
	check(rump_sys_getuid() == 0 && rump_sys_geteuid() == 0, "getuid and geteuid are 0");
	check(rump_sys_getgid() == 0 && rump_sys_getegid() == 0, "getgid and getegid are 0");
	int error = rumpclient_syscall(NB_SYS_getpid, NULL, 0, values);
	check(error == 0 && values[0] == pid, "getpid without arguments (%d)", error);
	error = rumpclient_syscall(1000, NULL, 0, values);
	check(error == NB_ENOSYS, "call 1000: ENOSYS (%d)", error);
}

static void read_and_write(int fd)
{
	char one[64] = { 0 }, two[64] = { 0 };
	check(rump_sys_write(fd, "hello, world", 12) == 12, "write 12");
	check(rump_sys_lseek(fd, 0, SEEK_CUR) == 12, "lseek says 12");
	check(rump_sys_lseek(fd, 0, SEEK_SET) == 0, "lseek to the start");
	check(rump_sys_read(fd, one, sizeof one) == 12 && memcmp(one, "hello, world", 12) == 0, "read 12");
	check(rump_sys_read(fd, one, sizeof one) == 0, "read at the end: 0");
	check(rump_sys_pwrite(fd, "WORLD", 5, 7) == 5, "pwrite 5 at 7");
	check(rump_sys_pread(fd, one, 5, 7) == 5 && memcmp(one, "WORLD", 5) == 0, "pread 5 at 7");
	check(rump_sys_lseek(fd, 0, SEEK_CUR) == 12, "pread and pwrite leave the offset");
	check(rump_sys_lseek(fd, -5, SEEK_SET) == -1 && errno == NB_EINVAL, "lseek to -5: EINVAL");
	struct iovec from[3] = { { "ab", 2 }, { "", 0 }, { "cdef", 4 } };
	check(rump_sys_writev(fd, from, 3) == 6, "writev 2 + 0 + 4");
	rump_sys_lseek(fd, 12, SEEK_SET);
	struct iovec into[2] = { { one, 3 }, { two, sizeof two } };
	check(rump_sys_readv(fd, into, 2) == 6 && memcmp(one, "abc", 3) == 0 &&
	    memcmp(two, "def", 3) == 0, "readv 3 + 3");
	check(rump_sys_writev(fd, from, 5000) == -1 && errno == NB_EINVAL, "writev of 5000: EINVAL");
	check(rump_sys_write(fd, one, (size_t)1 << 63) == -1 && errno == NB_EINVAL,
	    "write of 2^63: EINVAL");
}

static void descriptors(int fd)
{
	int other = rump_sys_dup(fd);
	check(other == fd + 1, "dup: the lowest that is free, %d", other);
	check(rump_sys_lseek(other, 3, SEEK_SET) == 3 && rump_sys_lseek(fd, 0, SEEK_CUR) == 3,
	    "dup shares the offset");
	check(rump_sys_dup2(fd, 33) == 33 && rump_sys_close(33) == 0, "dup2 to 33");
	check(rump_sys_dup2(40, 41) == -1 && errno == NB_EBADF, "dup2 of what is closed: EBADF");
	check(rump_sys_close(other) == 0, "close");
	check(rump_sys_close(other) == -1 && errno == NB_EBADF, "close again: EBADF");
	check(rump_sys_fcntl(fd, NB_F_GETFD, 0) == 0, "F_GETFD 0");
	check(rump_sys_fcntl(fd, NB_F_SETFD, P(NB_FD_CLOEXEC)) == 0 &&
	    rump_sys_fcntl(fd, NB_F_GETFD, 0) == NB_FD_CLOEXEC, "F_SETFD FD_CLOEXEC");
	check((rump_sys_fcntl(fd, NB_F_GETFL, 0) & 3) == NB_O_RDWR, "F_GETFL O_RDWR");
	other = rump_sys_fcntl(fd, NB_F_DUPFD_CLOEXEC, P(50));
	check(other == 50 && rump_sys_fcntl(50, NB_F_GETFD, 0) == NB_FD_CLOEXEC, "F_DUPFD_CLOEXEC");
	rump_sys_close(other);
	check(rump_sys_fcntl(fd, 9999, 0) == -1 && errno == NB_EINVAL, "fcntl 9999: EINVAL");
	int last = -1, error;
	for (int i = 0; i < 5000; i++) {
		other = rump_sys_open("/dev/null", NB_O_RDWR);
		error = errno;
		if (other < 0)
			break;
		last = other;
	}
	check(other == -1 && error == NB_EMFILE, "open until EMFILE: the last was %d (%d)", last, error);
	for (int i = fd + 1; i <= last; i++)
		rump_sys_close(i);
}

static void files(void)
{
	struct nb_stat st;
	char longest[1200];
	check(rump_sys_mkdir(dir, 0755) == 0, "mkdir %s", dir);
	check(rump_sys_mkdir(dir, 0755) == -1 && errno == NB_EEXIST, "mkdir again: EEXIST");
	memset(&st, 0xee, sizeof st);
	check(rump_sys_stat(dir, P(&st)) == 0 && st.mode == (NB_S_IFDIR | 0755), "stat: a directory");
	check(rump_sys_open(in_dir("f"), NB_O_RDONLY) == -1 && errno == NB_ENOENT, "open: ENOENT");
	int fd = rump_sys_open(in_dir("f"), NB_O_RDWR | NB_O_CREAT | NB_O_EXCL, 0644);
	check(fd >= 3, "open O_CREAT: %d", fd);
	check(rump_sys_open(in_dir("f"), NB_O_RDWR | NB_O_CREAT | NB_O_EXCL, 0644) == -1 &&
	    errno == NB_EEXIST, "O_EXCL again: EEXIST");
	read_and_write(fd);
	memset(&st, 0xee, sizeof st);
	check(rump_sys_fstat(fd, P(&st)) == 0 && st.mode == (NB_S_IFREG | 0644) && st.size == 18 &&
	    st.nlink == 1 && st.uid == 0 && st.ino != 0, "fstat: a file of 18 bytes");
	descriptors(fd);
	int append = rump_sys_open(in_dir("f"), NB_O_WRONLY | NB_O_APPEND);
	check(rump_sys_write(append, "!", 1) == 1 && rump_sys_lseek(append, 0, SEEK_CUR) == 19,
	    "O_APPEND writes at the end");
	check(rump_sys_read(append, &st, 1) == -1 && errno == NB_EBADF, "O_WRONLY: no read");
	rump_sys_close(append);
	check(rump_sys_ftruncate(fd, 5) == 0 && rump_sys_fstat(fd, P(&st)) == 0 && st.size == 5,
	    "ftruncate to 5");
	check(rump_sys_open(in_dir("f/x"), NB_O_RDONLY) == -1 && errno == NB_ENOTDIR, "f/x: ENOTDIR");
	check(rump_sys_open(dir, NB_O_RDWR) == -1 && errno == NB_EISDIR, "a directory: EISDIR");
	memset(longest, 'x', sizeof longest);
	longest[0] = '/';
	longest[sizeof longest - 1] = 0;
	check(rump_sys_open(longest, NB_O_RDONLY) == -1 && errno == NB_ENAMETOOLONG,
	    "a name of 1199: ENAMETOOLONG");
	check(rump_sys_rmdir(dir) == -1 && errno == NB_ENOTEMPTY, "rmdir: ENOTEMPTY");
	check(rump_sys_unlink(in_dir("f")) == 0, "unlink");
	check(rump_sys_stat(in_dir("f"), P(&st)) == -1 && errno == NB_ENOENT, "its name is gone");
	check(rump_sys_pwrite(fd, "still", 5, 0) == 5, "what is open outlives its name");
	rump_sys_close(fd);
	check(rump_sys_rmdir(dir) == 0, "rmdir");
}

static void devices(void)
{
	static char bytes[4096];
	struct nb_stat st;
	int fd = rump_sys_open("/dev/null", NB_O_RDWR), zeros = 1;
	check(fd >= 0 && rump_sys_write(fd, bytes, sizeof bytes) == sizeof bytes, "/dev/null takes all");
	check(rump_sys_read(fd, bytes, sizeof bytes) == 0, "/dev/null has nothing");
	check(rump_sys_fstat(fd, P(&st)) == 0 && (st.mode & NB_S_IFMT) == NB_S_IFCHR, "a device");
	rump_sys_close(fd);
	fd = rump_sys_open("/dev/zero", NB_O_RDWR);
	memset(bytes, 0xff, sizeof bytes);
	check(rump_sys_read(fd, bytes, sizeof bytes) == sizeof bytes, "read /dev/zero");
	for (size_t i = 0; i < sizeof bytes; i++)
		zeros &= bytes[i] == 0;
	check(zeros, "4096 zeros");
	rump_sys_close(fd);
}

static void pipes(void)
{
	static char bytes[8192];
	struct nb_stat st;
	int ends[2] = { -1, -1 };
	ssize_t n, filled = 0, drained = 0;
	check(rump_sys_pipe(ends) == 0 && ends[0] != ends[1], "pipe %d %d", ends[0], ends[1]);
	check(rump_sys_write(ends[1], "pipe", 4) == 4 && rump_sys_read(ends[0], bytes, 64) == 4 &&
	    memcmp(bytes, "pipe", 4) == 0, "through it");
	check(rump_sys_lseek(ends[0], 0, SEEK_SET) == -1 && errno == NB_ESPIPE, "lseek: ESPIPE");
	check(rump_sys_fstat(ends[0], P(&st)) == 0 && (st.mode & NB_S_IFMT) == NB_S_IFIFO, "a fifo");
	rump_sys_close(ends[1]);
	check(rump_sys_read(ends[0], bytes, 64) == 0, "no writer: end of file");
	rump_sys_close(ends[0]);
	check(rump_sys_pipe2(ends, NB_O_CLOEXEC | NB_O_NONBLOCK) == 0, "pipe2");
	check(rump_sys_fcntl(ends[0], NB_F_GETFD, 0) == 1 && rump_sys_fcntl(ends[1], NB_F_GETFD, 0) == 1,
	    "with O_CLOEXEC");
	check(rump_sys_read(ends[0], bytes, 1) == -1 && errno == NB_EAGAIN, "O_NONBLOCK: EAGAIN is 35");
	while ((n = rump_sys_write(ends[1], bytes, sizeof bytes)) > 0)
		filled += n;
	check(n == -1 && errno == NB_EAGAIN && filled >= 16384, "full with %zd bytes", filled);
	while ((n = rump_sys_read(ends[0], bytes, sizeof bytes)) > 0)
		drained += n;
	check(drained == filled, "and empty after as many");
	rump_sys_close(ends[0]);
	rump_sys_close(ends[1]);
}

static void sysctls(void)
{
	char text[256], before[256];
	size_t len = sizeof before, need = 0;
	int name[2] = { 1, 10 }, number = 0;
	check(rump_sys___sysctl(name, 2, before, &len, NULL, 0) == 0 && len == strlen(before) + 1,
	    "kern.hostname is \"%s\"", before);
	check(rump_sys___sysctl(name, 2, NULL, NULL, "stock.test", 10) == 0, "set it");
	len = sizeof text;
	check(rump_sys___sysctl(name, 2, text, &len, NULL, 0) == 0 && strcmp(text, "stock.test") == 0,
	    "it is \"%s\"", text);
	rump_sys___sysctl(name, 2, NULL, NULL, before, strlen(before));
	name[1] = 1;
	len = sizeof text;
	check(rump_sys___sysctl(name, 2, text, &len, NULL, 0) == 0 && strcmp(text, "NetBSD") == 0,
	    "kern.ostype is NetBSD");
	check(rump_sys___sysctl(name, 2, NULL, &need, NULL, 0) == 0 && need == 7, "its size is 7");
	len = 3;
	check(rump_sys___sysctl(name, 2, text, &len, NULL, 0) == -1 && errno == NB_ENOMEM,
	    "too little room: ENOMEM");
	check(rump_sys___sysctl(name, 2, NULL, NULL, "Linux", 5) == -1 && errno == NB_EPERM,
	    "set kern.ostype: EPERM");
	name[0] = 6;
	name[1] = 3;
	len = sizeof number;
	check(rump_sys___sysctl(name, 2, &number, &len, NULL, 0) == 0 && number >= 1, "hw.ncpu %d", number);
}

static void sockets(void)
{
	struct nb_sockaddr_in any = { sizeof any, NB_AF_INET, 0, htonl(INADDR_LOOPBACK), { 0 } }, bound;
	struct nb_sockaddr_un local = { 0, NB_AF_LOCAL, "" };
	struct nb_stat st;
	socklen_t len = sizeof bound;
	int value = 1, s = rump_sys_socket(NB_AF_INET, NB_SOCK_STREAM, 0);
	if (s < 0 && is_lacking(errno)) {
		skip("no AF_INET (errno %d)", errno);
		return;
	}
	check(s >= 0, "socket AF_INET %d", s);
	check(rump_sys_setsockopt(s, NB_SOL_SOCKET, NB_SO_REUSEADDR, &value, sizeof value) == 0,
	    "SO_REUSEADDR");
	check(rump_sys_bind(s, P(&any), sizeof any) == 0, "bind to 127.0.0.1, any port");
	check(rump_sys_getsockname(s, P(&bound), &len) == 0 && len == 16 && bound.len == 16 &&
	    bound.port != 0 && bound.addr == any.addr, "getsockname: port %d", ntohs(bound.port));
	int other = rump_sys_socket(NB_AF_INET, NB_SOCK_STREAM, 0);
	check(rump_sys_bind(other, P(&bound), sizeof bound) == -1 && errno == NB_EADDRINUSE,
	    "bind the same: EADDRINUSE");
	check(rump_sys_getpeername(other, P(&any), &len) == -1 && errno == NB_ENOTCONN,
	    "getpeername: ENOTCONN");
	rump_sys_close(other);
	rump_sys_close(s);
	check(rump_sys_socket(99, NB_SOCK_STREAM, 0) == -1 && errno == NB_EAFNOSUPPORT,
	    "socket of family 99: EAFNOSUPPORT");
	s = rump_sys_socket(NB_AF_LOCAL, NB_SOCK_STREAM, 0);
	snprintf(local.path, sizeof local.path, "/calls.sock%d", rump_sys_getpid());
	local.len = (uint8_t)(3 + strlen(local.path));
	check(s >= 0 && rump_sys_bind(s, P(&local), local.len) == 0, "bind AF_LOCAL %s", local.path);
	check(rump_sys_stat(local.path, P(&st)) == 0 && (st.mode & NB_S_IFMT) == 0140000, "a socket");
	rump_sys_close(s);
	check(rump_sys_unlink(local.path) == 0, "unlink it");
}

static void times(void)
{
	struct nb_timespec wait = { 0, 50000000 }, one, two;
	struct nb_timeval day;
	int64_t start = now_ms();
	check(rump_sys_nanosleep(P(&wait), NULL) == 0, "nanosleep for 50 ms");
	int64_t took = now_ms() - start;
	check(took >= 45 && took < 5000, "it took %d ms", (int)took);
	wait.nsec = 2000000000;
	check(rump_sys_nanosleep(P(&wait), NULL) == -1 && errno == NB_EINVAL, "2e9 ns: EINVAL");
	check(rump_sys_clock_gettime(0, P(&one)) == 0 && llabs(one.sec - (long long)time(NULL)) < 5,
	    "CLOCK_REALTIME is now");
	check(rump_sys_clock_gettime(3, P(&one)) == 0, "CLOCK_MONOTONIC is 3");
	sleep_ms(20);
	rump_sys_clock_gettime(3, P(&two));
	int64_t on = (two.sec - one.sec) * 1000000 + (two.nsec - one.nsec) / 1000;
	check(on >= 10000 && on < 5000000, "it went on %d us in 20 ms", (int)on);
	check(rump_sys_clock_gettime(77, P(&one)) == -1 && errno == NB_EINVAL, "clock 77: EINVAL");
	check(rump_sys_gettimeofday(P(&day), NULL) == 0 && llabs(day.sec - (long long)time(NULL)) < 5,
	    "gettimeofday is now");
}

int main(void)
{
	begin("calls", 60);
	connect_to_server();
	snprintf(dir, sizeof dir, "/calls%d", rump_sys_getpid());
	identity();
	files();
	devices();
	pipes();
	sysctls();
	sockets();
	times();
	return end();
}
