/*
 * The exec agent runs shell scripts for the host over one serial port.
 *
 * The host sends these lines. ID is a random token, so that a line from a host
 * process that has died is not taken for one of the current client:
 *
 *     S ID          new client: drop the script, kill the running one; the answer is `Y ID`
 *     D ID BASE64   append to the script; the answer is `K ID`
 *     R ID          run it; the answers are any number of `O ID BASE64`, then `E ID STATUS`
 *     X ID          kill the running script (its `E` follows)
 *
 * STATUS is the shell's: exit code, or 128 + signal. The command ends when its
 * shell ends, even if a background child still has the pipe open.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define LINE_MAX_BYTES 8192
#define OUTPUT_CHUNK 1536
#define INLINE_SCRIPT 65536

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct agent {
	int tty;
	char script_path[64];
	char line[LINE_MAX_BYTES];
	size_t line_len;
	char *script;
	size_t script_len;
	char id[64];
	pid_t child;
	int pidfd, output;
};

static void send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t wrote = write(fd, data, len);

		if (wrote < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		data += wrote;
		len -= (size_t)wrote;
	}
}

static void reply(struct agent *a, char kind, const char *id, const char *rest)
{
	char line[128];
	int len = snprintf(line, sizeof line, "%c %s%s%s\n", kind, id, *rest ? " " : "", rest);

	send_all(a->tty, line, (size_t)len);
}

static void send_output(struct agent *a, const unsigned char *data, size_t len)
{
	char line[OUTPUT_CHUNK * 4 / 3 + 128];
	size_t at = (size_t)snprintf(line, 80, "O %s ", a->id);

	for (size_t i = 0; i < len; i += 3) {
		unsigned v = data[i] << 16 | (i + 1 < len ? data[i + 1] << 8 : 0) | (i + 2 < len ? data[i + 2] : 0);

		line[at++] = alphabet[v >> 18];
		line[at++] = alphabet[v >> 12 & 63];
		line[at++] = i + 1 < len ? alphabet[v >> 6 & 63] : '=';
		line[at++] = i + 2 < len ? alphabet[v & 63] : '=';
	}
	line[at++] = '\n';
	send_all(a->tty, line, at);
}

static void append_base64(struct agent *a, const char *text)
{
	unsigned value = 0;
	int bits = 0;
	char *grown = realloc(a->script, a->script_len + strlen(text) + 1);

	if (!grown)
		return;
	a->script = grown;
	for (; *text && *text != '='; text++) {
		const char *digit = strchr(alphabet, *text);

		if (!digit)
			continue;
		value = value << 6 | (unsigned)(digit - alphabet);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			a->script[a->script_len++] = (char)(value >> bits & 255);
		}
	}
	a->script[a->script_len] = 0;
}

static void drop_script(struct agent *a)
{
	free(a->script);
	a->script = NULL;
	a->script_len = 0;
}

/* Send what is in the pipe now. Return 0 at its end. */
static int pump(struct agent *a)
{
	unsigned char data[OUTPUT_CHUNK];
	ssize_t got = read(a->output, data, sizeof data);

	if (got > 0)
		send_output(a, data, (size_t)got);
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static void finish(struct agent *a)
{
	char text[16];
	int status, left, code;

	while (waitpid(a->child, &status, 0) < 0 && errno == EINTR)
		;
	/* Read only what is there already: a background child may write for ever. */
	for (left = 4096; a->output >= 0 && left && poll(&(struct pollfd){.fd = a->output, .events = POLLIN}, 1, 0) > 0; left--)
		if (!pump(a))
			break;
	code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	snprintf(text, sizeof text, "%d", code);
	reply(a, 'E', a->id, text);
	if (a->output >= 0)
		close(a->output);
	close(a->pidfd);
	a->child = 0;
	a->output = a->pidfd = -1;
}

static void kill_child(struct agent *a)
{
	if (a->child)
		kill(-a->child, SIGKILL);
}

/* A long script goes through a file: one argv string is limited to 128 KiB. */
static int store_script(struct agent *a)
{
	int fd;

	if (a->script_len < INLINE_SCRIPT)
		return 0;
	unlink(a->script_path);
	fd = open(a->script_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	send_all(fd, a->script, a->script_len);
	close(fd);
	return 1;
}

static void run(struct agent *a, const char *id)
{
	int ends[2], stored = store_script(a);
	const char *script = a->script ? a->script : "";
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		reply(a, 'E', id, "126");
		return;
	}
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		setsid();
		signal(SIGHUP, SIG_DFL);
		chdir("/root");
		dup2(null, 0);
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		if (stored)
			execl("/bin/sh", "sh", a->script_path, (char *)NULL);
		else
			execl("/bin/sh", "sh", "-c", script, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	drop_script(a);
	if (pid < 0) {
		close(ends[0]);
		reply(a, 'E', id, "126");
		return;
	}
	a->child = pid;
	a->output = ends[0];
	a->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
}

static void handle(struct agent *a, char *line)
{
	char *id = line[0] && line[1] == ' ' ? line + 2 : "";
	char *rest = strchr(id, ' ');

	if (rest)
		*rest++ = 0;
	else
		rest = "";
	if (!*id || strlen(id) >= sizeof a->id)
		return;
	if (line[0] == 'S') {
		if (a->child) {
			kill_child(a);
			finish(a);
		}
		drop_script(a);
		strcpy(a->id, id);
		reply(a, 'Y', id, "");
	} else if (strcmp(id, a->id) != 0) {
		return;
	} else if (line[0] == 'D') {
		append_base64(a, rest);
		reply(a, 'K', id, "");
	} else if (line[0] == 'R' && !a->child) {
		run(a, id);
	} else if (line[0] == 'X') {
		kill_child(a);
	}
}

static void take_input(struct agent *a)
{
	char data[1024];
	ssize_t got = read(a->tty, data, sizeof data);

	if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
		_exit(1); /* init starts a new agent */
	for (ssize_t i = 0; i < got; i++) {
		if (data[i] == '\n') {
			a->line[a->line_len] = 0;
			a->line_len = 0;
			handle(a, a->line);
		} else if (a->line_len < sizeof a->line - 1) {
			a->line[a->line_len++] = data[i];
		}
	}
}

void agent_serve(int fd, const char *name)
{
	static struct agent agent;
	struct agent *a = &agent;

	a->tty = fd;
	a->output = a->pidfd = -1;
	snprintf(a->script_path, sizeof a->script_path, "/run/exec-%s.sh", name);
	for (;;) {
		struct pollfd fds[3] = {
			{.fd = a->tty, .events = POLLIN},
			{.fd = a->output, .events = POLLIN},
			{.fd = a->pidfd, .events = POLLIN},
		};

		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[0].revents) {
			take_input(a); /* may end one command and start another: poll again */
		} else if (a->child && fds[2].revents) {
			finish(a);
		} else if (a->child && fds[1].revents && !pump(a)) {
			close(a->output); /* the shell has closed it and still runs: wait for its end */
			a->output = -1;
		}
	}
}
