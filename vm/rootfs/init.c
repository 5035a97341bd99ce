/*
 * PID 1 of the probekit test guest.
 *
 * It mounts the file systems that a tracer's tests need, loads the modules named in
 * /etc/modules (one path per line, in order), and starts one exec agent per serial port.
 * Then it writes a line to the console through the kernel's log, so that no other message
 * can be mixed with it:
 *
 *     [    2.243815] PROBEKIT-READY release=6.1.0-56-cloud-amd64 cpus=2 modules=5
 *
 * It is written in C because a shell script would fork about fifty times, and under TCG
 * every fork costs milliseconds of boot time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

static const struct {
	const char *source, *target, *type, *options;
} mounts[] = {
	{"proc", "/proc", "proc", ""},
	{"sysfs", "/sys", "sysfs", ""},
	{"devtmpfs", "/dev", "devtmpfs", ""},
	{"devpts", "/dev/pts", "devpts", ""},
	{"tmpfs", "/dev/shm", "tmpfs", ""},
	{"tmpfs", "/tmp", "tmpfs", ""},
	{"tmpfs", "/run", "tmpfs", ""},
	{"debugfs", "/sys/kernel/debug", "debugfs", ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", ""},
	{"bpf", "/sys/fs/bpf", "bpf", ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
};

static const char *const agent_ttys[] = {"ttyS1", "ttyS2", "ttyS3"};
#define AGENTS (sizeof agent_ttys / sizeof *agent_ttys)

struct agent {
	int fd;
	pid_t pid;
};

static void complain(const char *what, const char *which)
{
	fprintf(stderr, "probekit-init: %s %s: %s\n", what, which, strerror(errno));
}

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
		mkdir(mounts[i].target, 0755);
		if (mount(mounts[i].source, mounts[i].target, mounts[i].type, 0, mounts[i].options) < 0)
			complain("mount", mounts[i].target);
	}
}

static void loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		return;
	if (ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
		request.ifr_flags |= IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &request);
	}
	close(fd);
}

static int load_modules(void)
{
	char path[256];
	int loaded = 0;
	FILE *list = fopen("/etc/modules", "r");

	if (!list)
		return 0;
	while (fgets(path, sizeof path, list)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			complain("load", path);
		else
			loaded++;
		if (fd >= 0)
			close(fd);
	}
	fclose(list);
	return loaded;
}

/* A raw tty: no echo, no line editing, no signals, 8 clean bits. */
static int open_raw_tty(const char *name)
{
	char path[64];
	struct termios mode;
	int fd;

	snprintf(path, sizeof path, "/dev/%s", name);
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0) {
		complain("open", path);
		return -1;
	}
	if (tcgetattr(fd, &mode) == 0) {
		cfmakeraw(&mode);
		cfsetspeed(&mode, B115200);
		mode.c_cflag |= CLOCAL | CREAD;
		tcsetattr(fd, TCSANOW, &mode);
	}
	return fd;
}

static pid_t start_agent(int fd, const char *name)
{
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		agent_serve(fd, name);
		_exit(0);
	}
	return pid;
}

int main(void)
{
	struct agent agents[AGENTS];
	struct utsname system;
	char ready[256];
	int modules, kmsg;

	mount_all();
	symlink("/proc/self/fd", "/dev/fd");
	sethostname("guest", 5);
	loopback_up();
	modules = load_modules();
	/* From here on every kernel message goes to the console, which tests read. */
	klogctl(8, NULL, 7);

	setenv("PATH", "/workloads:/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/root", 1);
	setenv("TERM", "dumb", 1);
	signal(SIGHUP, SIG_IGN);
	for (size_t i = 0; i < AGENTS; i++) {
		agents[i].fd = open_raw_tty(agent_ttys[i]);
		agents[i].pid = agents[i].fd < 0 ? -1 : start_agent(agents[i].fd, agent_ttys[i]);
	}
	uname(&system);
	snprintf(ready, sizeof ready, "<5>PROBEKIT-READY release=%s cpus=%ld modules=%d\n", system.release,
		 sysconf(_SC_NPROCESSORS_ONLN), modules);
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (kmsg < 0 || write(kmsg, ready, strlen(ready)) < 0)
		perror("init: /dev/kmsg");
	close(kmsg);

	for (;;) {
		pid_t ended = wait(NULL);

		if (ended < 0) {
			if (errno != EINTR)
				sleep(1);
			continue;
		}
		for (size_t i = 0; i < AGENTS; i++)
			if (agents[i].pid == ended)
				agents[i].pid = start_agent(agents[i].fd, agent_ttys[i]);
	}
}
