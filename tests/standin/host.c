/* A stock program that serves a rump kernel, as far as the server can tell: boots, serves, waits. */
#include <stdio.h>
#include <unistd.h>

int rump_init(void);
int rump_init_server(const char *);

int
main(int argc, char **argv)
{
	int error;

	if (argc != 2 || rump_init() != 0)
		return 100;
	if ((error = rump_init_server(argv[1])) != 0) {
		fprintf(stderr, "host: error %d\n", error);
		return error;
	}
	fprintf(stderr, "host: serving\n");
	for (;;)
		pause();
}
