/*
 * demo SECONDS: make a steady mix of system calls, and print the exact count of each at the end.
 *
 * It runs until SECONDS have passed or SIGTERM/SIGINT arrives (0: only a signal
 * ends it). Every call below goes through raw(), which counts it, so the line
 *
 *     {"workload":"demo","comm":"demo","pid":57,"rounds":93,"calls":{"getpid":930,...}}
 *
 * is what a tracer must show for this process if it was attached all the time.
 * The keys are the names of the system calls: the kernel's function is
 * __x64_sys_KEY. The libc makes none of them by itself: start-up and exit of a
 * static binary use others. The final write of the line is counted too.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum call {
	GETPID, GETPPID, GETUID, GETTID, OPENAT, CLOSE, READ, WRITE, PWRITE64, PREAD64,
	NEWFSTAT, LSEEK, MKDIRAT, UNLINKAT, PIPE2, MMAP, MUNMAP, SCHED_YIELD, NANOSLEEP, CALLS
};

static const struct {
	long number;
	const char *name;
} calls[CALLS] = {
	[GETPID] = {SYS_getpid, "getpid"}, [GETPPID] = {SYS_getppid, "getppid"},
	[GETUID] = {SYS_getuid, "getuid"}, [GETTID] = {SYS_gettid, "gettid"},
	[OPENAT] = {SYS_openat, "openat"}, [CLOSE] = {SYS_close, "close"},
	[READ] = {SYS_read, "read"}, [WRITE] = {SYS_write, "write"},
	[PWRITE64] = {SYS_pwrite64, "pwrite64"}, [PREAD64] = {SYS_pread64, "pread64"},
	[NEWFSTAT] = {SYS_fstat, "newfstat"}, [LSEEK] = {SYS_lseek, "lseek"},
	[MKDIRAT] = {SYS_mkdirat, "mkdirat"}, [UNLINKAT] = {SYS_unlinkat, "unlinkat"},
	[PIPE2] = {SYS_pipe2, "pipe2"}, [MMAP] = {SYS_mmap, "mmap"}, [MUNMAP] = {SYS_munmap, "munmap"},
	[SCHED_YIELD] = {SYS_sched_yield, "sched_yield"}, [NANOSLEEP] = {SYS_nanosleep, "nanosleep"},
};

static unsigned long long counts[CALLS];
static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
	(void)signal;
	stop = 1;
}

static long raw(enum call c, long a, long b, long d, long e)
{
	counts[c]++;
	return syscall(calls[c].number, a, b, d, e, c == MMAP ? -1L : 0L, 0L);
}

static void repeat(enum call c, int times)
{
	while (times--)
		raw(c, 0, 0, 0, 0);
}

/* The numbers differ, so that rows of a table cannot be confused. */
static void one_round(const char *directory)
{
	char data[512] = "probekit", file[80];
	struct stat st;
	int ends[2];
	long fd, map;

	repeat(GETPID, 40);
	repeat(GETPPID, 30);
	repeat(GETUID, 20);
	repeat(GETTID, 10);
	repeat(SCHED_YIELD, 3);

	fd = raw(OPENAT, AT_FDCWD, (long)"/dev/null", O_RDWR, 0);
	for (int i = 0; i < 9; i++)
		raw(WRITE, fd, (long)data, 64, 0);
	for (int i = 0; i < 5; i++)
		raw(READ, fd, (long)data, 64, 0);
	raw(CLOSE, fd, 0, 0, 0);

	snprintf(file, sizeof file, "%s/file", directory);
	fd = raw(OPENAT, AT_FDCWD, (long)file, O_RDWR | O_CREAT, 0600);
	for (int i = 0; i < 4; i++)
		raw(PWRITE64, fd, (long)data, sizeof data, i * 512);
	for (int i = 0; i < 6; i++)
		raw(PREAD64, fd, (long)data, sizeof data, 0);
	raw(LSEEK, fd, 0, SEEK_SET, 0);
	raw(NEWFSTAT, fd, (long)&st, 0, 0);
	raw(NEWFSTAT, fd, (long)&st, 0, 0);
	raw(CLOSE, fd, 0, 0, 0);
	raw(UNLINKAT, AT_FDCWD, (long)file, 0, 0);

	if (raw(PIPE2, (long)ends, 0, 0, 0) == 0) {
		raw(WRITE, ends[1], (long)data, 128, 0);
		raw(READ, ends[0], (long)data, 128, 0);
		raw(CLOSE, ends[0], 0, 0, 0);
		raw(CLOSE, ends[1], 0, 0, 0);
	}
	map = raw(MMAP, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	if (map > 0) {
		*(volatile char *)map = 1;
		raw(MUNMAP, map, 8192, 0, 0);
	}
	raw(NANOSLEEP, (long)&(struct timespec){.tv_nsec = 5000000}, 0, 0, 0);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t); /* never one of the counted calls, with the vdso or without */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
	char line[2048], directory[64];
	unsigned long long rounds = 0;
	double seconds, end;
	int at;

	if (argc != 2 || (seconds = atof(argv[1])) < 0) {
		fprintf(stderr, "usage: demo SECONDS\n");
		return 2;
	}
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	at = (int)syscall(SYS_getpid);
	counts[GETPID]++;
	snprintf(directory, sizeof directory, "/tmp/demo.%d", at);
	raw(MKDIRAT, AT_FDCWD, (long)directory, 0700, 0);
	for (end = now() + seconds; !stop && (seconds == 0 || now() < end); rounds++)
		one_round(directory);
	raw(UNLINKAT, AT_FDCWD, (long)directory, AT_REMOVEDIR, 0);

	counts[WRITE]++; /* the one below */
	at = snprintf(line, sizeof line, "{\"workload\":\"demo\",\"comm\":\"demo\",\"pid\":%d,\"rounds\":%llu,\"calls\":{",
		      at, rounds);
	for (int c = 0; c < CALLS; c++)
		at += snprintf(line + at, sizeof line - (size_t)at, "%s\"%s\":%llu", c ? "," : "", calls[c].name, counts[c]);
	at += snprintf(line + at, sizeof line - (size_t)at, "}}\n");
	syscall(SYS_write, 1, line, (size_t)at);
	return 0;
}
