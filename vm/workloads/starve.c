/*
 * starve SECONDS [CPU]: keep a runnable task from running. This needs two CPUs.
 *
 * Two tasks are real-time. The one with the higher priority computes on CPU (1) for
 * SECONDS, so the other one, which was preempted between two of its own
 * instructions, stays there. The time that the kernel reserves for ordinary tasks does not
 * help it. The start is written to the console, which the host can read while the guest
 * starves; at the end a line of JSON is printed:
 *
 *     {"workload":"starve","seconds":5,"cpu":1,"victim":123,"ran":0}
 *
 * ran is the number of loops that the victim made meanwhile.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void must(int result)
{
	if (result < 0) {
		perror("starve");
		exit(1);
	}
}

static void become_real_time(int priority, int cpu)
{
	struct sched_param param = { .sched_priority = priority };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setscheduler(0, SCHED_FIFO, &param)); /* first: an ordinary task would have to wait for the other one there */
	must(sched_setaffinity(0, sizeof set, &set));
}

static void write_console(const char *what)
{
	int console = open("/dev/console", O_WRONLY | O_NOCTTY);

	must(console);
	dprintf(console, "%s\n", what);
	must(tcdrain(console)); /* the task that drains it may starve too */
	close(console);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0, end;
	int cpu = argc > 2 ? atoi(argv[2]) : 1;
	volatile long *loops = mmap(NULL, sizeof *loops, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cpu_set_t others;
	long before;
	pid_t victim;

	if (!(seconds > 0) || loops == MAP_FAILED) {
		fprintf(stderr, "usage: starve SECONDS [CPU]\n");
		return 2;
	}
	must(sched_getaffinity(0, sizeof others, &others));
	CPU_CLR(cpu, &others);
	must(sched_setaffinity(0, sizeof others, &others)); /* the victim leaves no time for the timers of its own CPU */
	victim = fork();
	if (victim == 0) {
		become_real_time(10, cpu);
		for (;;)
			++*loops;
	}
	while (!*loops)
		sched_yield();
	write_console("starving");
	become_real_time(50, cpu);
	before = *loops;
	for (end = now() + seconds; now() < end;)
		;
	before = *loops - before;
	kill(victim, SIGKILL);
	waitpid(victim, NULL, 0);
	printf("{\"workload\":\"starve\",\"seconds\":%g,\"cpu\":%d,\"victim\":%d,\"ran\":%ld}\n", seconds, cpu, (int)victim,
	       before);
	return 0;
}
