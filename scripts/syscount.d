#!/usr/bin/env -S probekit -s
/*
 * syscount.d - count the guest's system calls, by function and by program.
 *
 * Needs: the kernel's types (BTF) for execname. Ends with Ctrl-C.
 *
 * Sample output:
 *
 *   __x64_sys_openat                                                 12
 *   __x64_sys_read                                                 2044
 *
 *   sh                                                               96
 *   cat                                                            1960
 */
#pragma D option quiet

fbt::sys_*:entry
{
	@calls[probefunc] = count();
	@programs[execname] = count();
}
