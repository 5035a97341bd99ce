/*
 * mixed SECONDS [WORKERS]: do many kinds of kernel work at once, for stress.
 *
 * Each worker is a process with two threads. One thread repeats the table of
 * operations, the other one answers its futex. One JSON line is printed at the end:
 *
 *     {"workload":"mixed","seconds":5.0,"workers":4,"lost":0,
 *      "operations":{"file":123,...},"errors":{"file":0,...}}
 *
 * (one line). Successful operations are counted in operations,
 * the others in errors; lost counts workers that did not end with status 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPERATIONS 10

struct shared {
	atomic_ullong done[OPERATIONS], errors[OPERATIONS];
};

static struct shared *shared;
static atomic_int ball; /* futex word: 1 = worker's turn ends, 0 = partner answered */
static atomic_int finished;
static volatile sig_atomic_t signals_seen;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_signal(int signal)
{
	(void)signal;
	signals_seen++;
}

static int file_op(void)
{
	char path[64], data[4096];
	int fd, ok;

	snprintf(path, sizeof path, "/tmp/mixed.%d", (int)getpid());
	memset(data, 'x', sizeof data);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return 0;
	ok = write(fd, data, sizeof data) == sizeof data && lseek(fd, 0, SEEK_SET) == 0 &&
	     read(fd, data, sizeof data) == sizeof data && ftruncate(fd, 100) == 0 && fsync(fd) == 0;
	close(fd);
	return unlink(path) == 0 && ok;
}

static int pipe_op(void)
{
	char data[256] = "";
	int ends[2], ok;

	if (pipe(ends) < 0)
		return 0;
	ok = write(ends[1], data, sizeof data) == sizeof data && read(ends[0], data, sizeof data) == sizeof data;
	close(ends[0]);
	close(ends[1]);
	return ok;
}

static int exec_op(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execl("/proc/self/exe", "mixed", "--child", (char *)NULL);
		_exit(126);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7;
}

static int mmap_op(void)
{
	size_t len = 64 * 1024;
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ok;

	if (p == MAP_FAILED)
		return 0;
	for (size_t i = 0; i < len; i += 4096)
		p[i] = 1;
	ok = mprotect(p, 4096, PROT_READ) == 0 && madvise(p + 4096, 4096, MADV_DONTNEED) == 0 && p[4096] == 0;
	return munmap(p, len) == 0 && ok;
}

static int futex_op(void)
{
	struct timespec limit = {.tv_sec = 10};

	atomic_store(&ball, 1);
	syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, 1);
	while (atomic_load(&ball) == 1)
		if (syscall(SYS_futex, &ball, FUTEX_WAIT_PRIVATE, 1, &limit) < 0 && errno == ETIMEDOUT)
			return 0;
	return 1;
}

static int yield_op(void)
{
	return sched_yield() == 0;
}

static int timer_op(void)
{
	struct itimerspec when = {.it_value = {.tv_nsec = 200000}};
	unsigned long long expired = 0;
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), ok;

	if (fd < 0)
		return 0;
	ok = timerfd_settime(fd, 0, &when, NULL) == 0 && read(fd, &expired, sizeof expired) == sizeof expired && expired;
	close(fd);
	return ok;
}

static int signal_op(void)
{
	sig_atomic_t before = signals_seen;

	return raise(SIGUSR1) == 0 && signals_seen == before + 1;
}

static int socket_op(void)
{
	char data[128] = "";
	int ends[2], ok;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return 0;
	ok = send(ends[0], data, sizeof data, 0) == sizeof data &&
	     poll(&(struct pollfd){.fd = ends[1], .events = POLLIN}, 1, 10000) == 1 &&
	     recv(ends[1], data, sizeof data, 0) == sizeof data;
	close(ends[0]);
	close(ends[1]);
	return ok;
}

static int sleep_op(void)
{
	return nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL) == 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} operations[OPERATIONS] = {
	{"file", file_op}, {"pipe", pipe_op}, {"exec", exec_op}, {"mmap", mmap_op}, {"futex", futex_op},
	{"yield", yield_op}, {"timer", timer_op}, {"signal", signal_op}, {"socket", socket_op}, {"sleep", sleep_op},
};

static void *partner(void *unused)
{
	struct timespec limit = {.tv_nsec = 50000000};

	(void)unused;
	while (!atomic_load(&finished)) {
		if (atomic_load(&ball) == 1) {
			atomic_store(&ball, 0);
			syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, INT_MAX);
		} else {
			syscall(SYS_futex, &ball, FUTEX_WAIT_PRIVATE, 0, &limit);
		}
	}
	return NULL;
}

static int work(double end)
{
	pthread_t thread;

	signal(SIGUSR1, on_signal);
	if (pthread_create(&thread, NULL, partner, NULL) != 0)
		return 1;
	while (now() < end)
		for (int i = 0; i < OPERATIONS; i++)
			atomic_fetch_add(operations[i].run() ? &shared->done[i] : &shared->errors[i], 1);
	atomic_store(&finished, 1);
	pthread_join(thread, NULL);
	return 0;
}

static void print_counts(const char *name, atomic_ullong *counts)
{
	printf(",\"%s\":{", name);
	for (int i = 0; i < OPERATIONS; i++)
		printf("%s\"%s\":%llu", i ? "," : "", operations[i].name, atomic_load(&counts[i]));
	printf("}");
}

int main(int argc, char **argv)
{
	double seconds, end;
	int workers, started = 0, lost = 0, status;

	if (argc == 2 && strcmp(argv[1], "--child") == 0)
		return 7;
	seconds = argc > 1 ? atof(argv[1]) : 0;
	workers = argc > 2 ? atoi(argv[2]) : 2;
	if (seconds <= 0 || workers < 1) {
		fprintf(stderr, "usage: mixed SECONDS [WORKERS]\n");
		return 2;
	}
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mixed: mmap");
		return 1;
	}
	end = now() + seconds;
	for (int i = 0; i < workers; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(work(end));
		if (pid < 0)
			lost++;
		else
			started++;
	}
	while (started > 0) {
		if (wait(&status) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		started--;
		lost += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
	printf("{\"workload\":\"mixed\",\"seconds\":%.1f,\"workers\":%d,\"lost\":%d", seconds, workers, lost + started);
	print_counts("operations", shared->done);
	print_counts("errors", shared->errors);
	printf("}\n");
	return lost || started;
}
