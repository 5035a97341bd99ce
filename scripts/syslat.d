#!/usr/bin/env -S probekit -s
/*
 * syslat.d - show how long system calls take, by name, and which take the most time in total.
 *
 *    probekit -r TARGET -s syslat.d          every program
 *    probekit -r TARGET -s syslat.d cat      programs of that name
 *
 * Needs: the kernel's types (BTF) for self->. Calls that have not returned are not counted. Ends with Ctrl-C.
 *
 * Sample output (its end):
 *
 *   read, ns
 *            value  ------------- Distribution ------------- count
 *             2048 |                                         0
 *             4096 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@      35
 *             8192 |@@@@@                                    5
 *            16384 |                                         0
 *
 *   openat                       311224 ns in all
 *   read                         902118 ns in all
 */
#pragma D option quiet
#pragma D option defaultargs

syscall:::entry
/$$1 == "" || execname == $$1/
{
	self->began = timestamp;
}

syscall:::return
/self->began/
{
	this->took = timestamp - self->began;
	@spread[probefunc] = quantize(this->took);
	@all[probefunc] = sum(this->took);
	self->began = 0;
}

END
{
	printa("  %s, ns%@d\n", @spread);
	printa("  %-24s %@12d ns in all\n", @all);
}
