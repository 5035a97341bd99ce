#!/usr/bin/env -S probekit -s
/*
 * opens.d - print a line for every file that a program opens, with the result.
 *
 * Reads the name from the program's memory when the call returns: then its page is in memory.
 * Needs: the kernel's types (BTF) for self->. Ends with Ctrl-C.
 *
 * Sample output:
 *
 *      PID PROGRAM          RESULT NAME
 *     1042 cat                   3 /etc/passwd
 *     1043 cat                  -2 /no/such/file
 */
#pragma D option quiet

BEGIN
{
	printf("%6s %-16s %6s %s\n", "PID", "PROGRAM", "RESULT", "NAME");
}

fbt::do_sys_openat2:entry
{
	self->name = arg1;
}

fbt::do_sys_openat2:return
/self->name/
{
	printf("%6d %-16s %6d %s\n", pid, execname, (int)arg1, copyinstr(self->name));
	self->name = 0;
}
