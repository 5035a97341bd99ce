/*
 * badptr N: make N rounds of system calls with user pointers that are bad, end too early or just in time, or have no
 * page yet.
 *
 * Every result comes from the kernel's exception fix-ups for a fault while it
 * copies from or to user memory. One JSON line is printed: each call with its results
 * (or minus errno) and how often each of them came:
 *
 *     {"workload":"badptr","rounds":1000,"results":{"nanosleep_null":{"-14":1000},"read_cut":{"100":1000}}}
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define CUT 100 /* bytes before the unmapped page */
#define KINDS 4 /* different results that one call may have */

static char *bad = (char *)8;
static char *edge; /* the page after it is not mapped */
static int zero, null, file, pipes[2];

static long result(long r) { return r < 0 ? -errno : r; }
static char *cut(void) { return edge + PAGE - CUT; }

static char *fresh(void)
{
	return mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long nanosleep_bad(void) { return syscall(SYS_nanosleep, bad, NULL); }
static long nanosleep_cut(void) { return syscall(SYS_nanosleep, edge + PAGE - 8, NULL); }
static long uname_bad(void) { return syscall(SYS_uname, bad); }
static long uname_cut(void) { return syscall(SYS_uname, cut()); }
static long open_bad(void) { return syscall(SYS_open, bad, O_RDONLY); }
static long open_cut(void) { memset(cut(), '/', CUT); return syscall(SYS_open, cut(), O_RDONLY); }
static long open_end(void) { strcpy(edge + PAGE - 8, "no/such"); return syscall(SYS_open, edge + PAGE - 8, O_RDONLY); }
static long open_empty(void) { edge[PAGE - 1] = 0; return syscall(SYS_open, edge + PAGE - 1, O_RDONLY); }
static long read_bad(void) { return syscall(SYS_read, zero, bad, 64); }
static long read_cut(void) { return syscall(SYS_read, zero, cut(), PAGE); }
static long pread_cut(void) { return syscall(SYS_pread64, file, cut(), 2 * PAGE, 3); }
static long pwrite_bad(void) { return syscall(SYS_pwrite64, file, bad, 64, 0); }
static long pwrite_cut(void) { return syscall(SYS_pwrite64, file, cut(), PAGE, 5); }
static long pipe_bad(void) { return syscall(SYS_write, pipes[1], bad, 64); }
static long futex_bad(void) { return syscall(SYS_futex, (bad + 0), FUTEX_WAIT, 1, NULL, NULL, 0); }
static long writev_bad(void) { return syscall(SYS_writev, null, bad, 3); }

static long read_fresh(void)
{
	char *page = fresh();
	long got = syscall(SYS_read, zero, page + 7, PAGE + 1000);

	munmap(page, 2 * PAGE);
	return got;
}

static long pipe_fresh(void)
{
	char *page = fresh();
	long got = syscall(SYS_write, pipes[1], page + PAGE - 5, 10);

	if (got > 0 && read(pipes[0], page + 2 * PAGE - 10, 10) != got)
		got = -1;
	munmap(page, 2 * PAGE);
	return got;
}

static const struct {
	const char *name;
	long (*call)(void);
} calls[] = {
	{ "nanosleep_bad", nanosleep_bad }, { "nanosleep_cut", nanosleep_cut }, { "uname_bad", uname_bad },
	{ "uname_cut", uname_cut }, { "open_bad", open_bad }, { "open_cut", open_cut }, { "open_end", open_end },
	{ "open_empty", open_empty }, { "read_bad", read_bad },
	{ "read_cut", read_cut }, { "pread_cut", pread_cut }, { "pwrite_bad", pwrite_bad },
	{ "pwrite_cut", pwrite_cut }, { "pipe_bad", pipe_bad }, { "futex_bad", futex_bad },
	{ "writev_bad", writev_bad }, { "read_fresh", read_fresh }, { "pipe_fresh", pipe_fresh },
};
#define CALLS (sizeof calls / sizeof *calls)

static struct { long value, count; } seen[CALLS][KINDS];

static void count(unsigned call, long value)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		if (!seen[call][kind].count || seen[call][kind].value == value) {
			seen[call][kind].value = value;
			seen[call][kind].count++;
			return;
		}
	}
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 0;
	char path[] = "/tmp/badptr.XXXXXX";

	if (rounds < 1) {
		fprintf(stderr, "usage: badptr N\n");
		return 2;
	}
	edge = fresh();
	munmap(edge + PAGE, PAGE);
	memset(edge, 'x', PAGE);
	zero = open("/dev/zero", O_RDONLY);
	null = open("/dev/null", O_WRONLY);
	file = mkstemp(path);
	if (zero < 0 || null < 0 || file < 0 || pipe(pipes) < 0 || ftruncate(file, 4 * PAGE) < 0) {
		perror("badptr");
		return 1;
	}
	unlink(path);
	for (long round = 0; round < rounds; round++)
		for (unsigned call = 0; call < CALLS; call++) {
			errno = 0;
			count(call, result(calls[call].call()));
		}
	printf("{\"workload\":\"badptr\",\"rounds\":%ld,\"results\":{", rounds);
	for (unsigned call = 0; call < CALLS; call++) {
		printf("%s\"%s\":{", call ? "," : "", calls[call].name);
		for (unsigned kind = 0; kind < KINDS && seen[call][kind].count; kind++)
			printf("%s\"%ld\":%ld", kind ? "," : "", seen[call][kind].value, seen[call][kind].count);
		printf("}");
	}
	printf("}}\n");
	return 0;
}
