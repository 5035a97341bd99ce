#!/usr/bin/env -S probekit -s
/*
 * execs.d - a line for every program that is started in the guest.
 *
 * The name is the one the kernel opened; at the return the task is the new program already.
 * Needs: the kernel's types (BTF). Ends with Ctrl-C.
 *
 * Sample output:
 *
 *     PPID    PID    UID PROGRAM          FILE
 *      161   1042      0 ls               /bin/ls
 */
#pragma D option quiet

BEGIN
{
	printf("%6s %6s %6s %-16s %s\n", "PPID", "PID", "UID", "PROGRAM", "FILE");
}

fbt::begin_new_exec:entry
{
	self->file = args[0]->filename;
}

fbt::begin_new_exec:return
/self->file && arg1 == 0/
{
	printf("%6d %6d %6d %-16s %s\n", ppid, pid, uid, execname, stringof(self->file));
	self->file = 0;
}
