/* Halt: the caller is answered, then the server goes, and others see their connection end. */
#include "stock.h"

int main(void)
{
	begin("halts", 30);
	int other = raw_connect();
	check(other >= 0 && raw_handshake(other, HANDSHAKE_GUEST, "other", 6) == 0, "another client");
	connect_to_server();
	check(rump_sys_getpid() > 1, "getpid");
	int result = rump_sys_reboot(0, NULL), error = errno;
	check(result == 0 && error == 0, "reboot is answered: %d, errno %d", result, error);
	check(is_closed_within(other, 10000), "the other's connection ends");
	result = rump_sys_dup(0);
	check(result == -1 && errno != 0, "a call after it fails: errno %d", errno);
	int s = -1;
	for (int i = 0; i < 100 && (s = raw_connect()) >= 0; i++) {
		close(s);
		sleep_ms(50);
	}
	check(s == -1, "nobody listens any more");
	return end();
}
