#!/usr/bin/env -S probekit -s
/*
 * offcpu.d - show where programs wait: the time from losing a CPU to getting one again, by program and stack.
 *
 *    probekit -r TARGET -s offcpu.d          every program
 *    probekit -r TARGET -s offcpu.d sshd     programs of that name
 *
 * schedule() returns when the task runs again. Prints the ten longest waits when it ends (Ctrl-C).
 * Needs: the kernel's types (BTF) for self->, the kernel's unwind tables (ORC) for the stacks.
 *
 * Sample output (its end; times in microseconds):
 *
 *   sleep
 *                 vmlinux`schedule+0x5
 *                 vmlinux`do_nanosleep+0x67
 *                 vmlinux`hrtimer_nanosleep+0xbc
 *                 ...
 *              1000182
 */
#pragma D option quiet
#pragma D option defaultargs
#pragma D option stackframes=12

fbt::schedule:entry
/pid && ($$1 == "" || execname == $$1)/
{
	self->left = timestamp;
}

fbt::schedule:return
/self->left/
{
	@waited[execname, stack()] = sum(timestamp - self->left);
	self->left = 0;
}

END
{
	normalize(@waited, 1000);
	trunc(@waited, 10);
}
