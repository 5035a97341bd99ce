#!/usr/bin/env -S probekit -s
/*
 * execs.d - print a line for every program that starts in the guest, with its command line.
 *
 * Fires after the kernel has prepared the new program and before it enters it.
 * Needs: the kernel's types (BTF). Ends with Ctrl-C.
 *
 * Sample output:
 *
 *     PPID    PID    UID FILE                     COMMAND
 *      161   1042      0 /bin/ls                  ls -l /tmp
 */
#pragma D option quiet

BEGIN
{
	printf("%6s %6s %6s %-24s %s\n", "PPID", "PID", "UID", "FILE", "COMMAND");
}

fbt::finalize_exec:entry
{
	printf("%6d %6d %6d %-24s %s\n", ppid, pid, uid, stringof(args[0]->filename), execargs);
}
