/*
 * syscalls N [CPU]: make exactly N raw getppid calls, and time them.
 *
 * It pins itself to CPU if given, and prints one JSON line:
 *
 *     {"workload":"syscalls","syscall":"getppid","calls":1000000,"cpu":1,"ns":405000000,"ns_per_call":405.0}
 *
 * cpu is -1 when it is not pinned. Nothing else in the process calls getppid.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long long calls, started, ns;
	int cpu = argc > 2 ? atoi(argv[2]) : -1;

	if (argc < 2 || (calls = atoll(argv[1])) < 1) {
		fprintf(stderr, "usage: syscalls N [CPU]\n");
		return 2;
	}
	if (cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof set, &set) < 0) {
			perror("syscalls: sched_setaffinity");
			return 1;
		}
	}
	started = now_ns();
	for (long long i = 0; i < calls; i++)
		syscall(SYS_getppid);
	ns = now_ns() - started;
	printf("{\"workload\":\"syscalls\",\"syscall\":\"getppid\",\"calls\":%lld,\"cpu\":%d,\"ns\":%lld,\"ns_per_call\":%.1f}\n",
	       calls, cpu, ns, (double)ns / (double)calls);
	return 0;
}
