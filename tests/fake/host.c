/*
 * A stock program that serves a rump kernel, as far as the server can tell: boots, serves, waits.
 *
 * With FAKE_QUIET it prints nothing. With FAKE_BREAKS its server breaks down: from then on the host
 * refuses to do anything for its io_uring.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int rump_init(void);
int rump_init_server(const char *);

static int
refuse_io_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

int
main(int argc, char **argv)
{
	int error;

	if (argc != 2 || rump_init() != 0)
		return 100;
	if ((error = rump_init_server(argv[1])) != 0) {
		if (getenv("FAKE_QUIET") == NULL)
			fprintf(stderr, "host: error %d\n", error);
		return error;
	}
	if (getenv("FAKE_BREAKS") != NULL && refuse_io_uring() != 0)
		return 101;
	fprintf(stderr, "host: serving\n");
	for (;;)
		pause();
}
