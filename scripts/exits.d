#!/usr/bin/env -S probekit -s
/*
 * exits.d - print a line for every process that ends in the guest.
 *
 * do_exit() has the exit code as its first argument; the status is its second byte.
 * Needs: the kernel's types (BTF) for pid and execname. Ends with Ctrl-C.
 *
 * Sample output:
 *
 *    CPU    PID PROGRAM          STATUS
 *      1   1042 ls                    0
 *      0   1043 false                 1
 */
#pragma D option quiet

BEGIN
{
	printf("%5s %6s %-16s %6s\n", "CPU", "PID", "PROGRAM", "STATUS");
}

fbt::do_exit:entry
/pid == tid/
{
	printf("%5d %6d %-16s %6d\n", cpu, pid, execname, (arg0 >> 8) & 0xff);
}
