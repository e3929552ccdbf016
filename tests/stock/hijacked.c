/*
 * A program that knows nothing of rump kernels, run under librumphijack with RUMPHIJACK=path=/rump and
 * sockets hijacked. What that library does not do on Linux is left alone here: stat and getdents are
 * not intercepted; flags and addresses are not translated, so that 0x200 creates a file.
 */
#undef _FILE_OFFSET_BITS
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CREATE = 0x200, FIRST_RUMP_FD = 100 };

static int passed, failed;

static void check(int ok, const char *what)
{
	int error = errno;
	if (ok)
		printf("PASS hijacked: %s\n", what);
	else
		printf("FAIL hijacked: %s (errno %d)\n", what, error);
	fflush(stdout);
	*(ok ? &passed : &failed) += 1;
}

static int has_hello(int fd)
{
	char bytes[5];
	return pread(fd, bytes, 5, 0) == 5 && memcmp(bytes, "hello", 5) == 0;
}

static int ended_well(pid_t child)
{
	int status = -1;
	return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(int count, char **args)
{
	extern char **environ;
	char bytes[64], self[4096];
	if (count > 1)	/* after exec: the file is what is read from */
		return !has_hello(0);
	alarm(30);
	ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
	self[len > 0 ? len : 0] = 0;
	int fd = open("/rump/hijacked", O_RDWR | CREATE, 0644);
	check(fd >= FIRST_RUMP_FD, "open: a descriptor of the rump kernel's");
	check(write(fd, "hello", 5) == 5, "write");
	check(lseek(fd, 0, SEEK_SET) == 0 && read(fd, bytes, 5) == 5, "lseek, read");
	struct iovec parts[2] = { { " wo", 3 }, { "rld", 3 } };
	check(writev(fd, parts, 2) == 6, "writev");
	check(pread(fd, bytes, 11, 0) == 11 && memcmp(bytes, "hello world", 11) == 0, "pread");
	check(access("/rump/hijacked", F_OK) == 0, "access");
	check(access("/rump/none", F_OK) == -1 && errno == ENOENT, "access of what is not there");
	check(mkdir("/rump/hijacked.d", 0755) == 0 && rmdir("/rump/hijacked.d") == 0, "mkdir, rmdir");
	int other = dup(fd);
	check(other >= FIRST_RUMP_FD && lseek(other, 0, SEEK_CUR) == 11, "dup");
	check(close(other) == 0, "close");
	int host = open("/dev/null", O_RDWR);
	check(host >= 0 && host < FIRST_RUMP_FD && write(host, "x", 1) == 1, "a file of the host's");
	close(host);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	check(s >= FIRST_RUMP_FD && close(s) == 0, "socket: the rump kernel's");
	pid_t child = fork();
	if (child == 0)
		_exit(!has_hello(fd));
	check(ended_well(child), "fork: the child has the file");
	child = fork();
	if (child == 0) {
		if (dup2(fd, 0) == 0)
			execve(self, (char *[]){ args[0], "again", NULL }, environ);
		_exit(3);
	}
	check(ended_well(child), "fork, dup2 to 0, exec: it is there");
	check(unlink("/rump/hijacked") == 0, "unlink");
	printf("DONE hijacked: %d passed, %d failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
