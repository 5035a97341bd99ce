/*
 * faultwait SECONDS: sleep that long in the kernel while it copies from a user page.
 *
 * A thread writes to a pipe from a page that is not filled (userfaultfd), so
 * the kernel's copy faults and the thread sleeps in the middle of it. After
 * SECONDS the page is filled and the write ends. The program prints a line "sleeping" as
 * soon as the thread sleeps, "filling" before it can go on, and one JSON line at the end:
 *
 *     {"workload":"faultwait","written":10,"text":"ok"}
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096

static char *page;
static int pipes[2];
static long written = -1;

static void *writer(void *unused)
{
	(void)unused;
	written = write(pipes[1], page + 100, 10);
	return NULL;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range;
	struct uffdio_copy fill;
	struct uffd_msg message;
	static char source[PAGE] __attribute__((aligned(PAGE)));
	char got[10];
	pthread_t thread;
	int fd;

	if (argc < 2) {
		fprintf(stderr, "usage: faultwait SECONDS\n");
		return 2;
	}
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	range = (struct uffdio_register){ .range = { (unsigned long)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	if (fd < 0 || pipe(pipes) < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &range) < 0 ||
	    pthread_create(&thread, NULL, writer, NULL)) {
		perror("faultwait");
		return 1;
	}
	if (read(fd, &message, sizeof message) != sizeof message || message.event != UFFD_EVENT_PAGEFAULT) {
		perror("faultwait: no fault");
		return 1;
	}
	puts("sleeping");
	fflush(stdout);
	usleep((useconds_t)(atof(argv[1]) * 1e6));
	memset(source, 'x', PAGE);
	puts("filling");
	fflush(stdout);
	fill = (struct uffdio_copy){ .dst = (unsigned long)page, .src = (unsigned long)source, .len = PAGE };
	if (ioctl(fd, UFFDIO_COPY, &fill) < 0) {
		perror("faultwait: fill");
		return 1;
	}
	pthread_join(thread, NULL);
	printf("{\"workload\":\"faultwait\",\"written\":%ld,\"text\":\"%s\"}\n", written,
	       written == 10 && read(pipes[0], got, 10) == 10 && !memcmp(got, source, 10) ? "ok" : "wrong");
	return 0;
}
