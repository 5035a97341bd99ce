#!/usr/bin/env -S probekit -s
/*
 * faults.d - count page faults by program, and show how long they take.
 *
 * Needs: the kernel's types (BTF) for self->. Ends with Ctrl-C.
 *
 * Sample output (its end):
 *
 *   PROGRAM              FAULTS    AVERAGE ns    LONGEST ns
 *   sh                      211          4120         31877
 */
#pragma D option quiet

fbt::handle_mm_fault:entry
{
	self->began = timestamp;
}

fbt::handle_mm_fault:return
/self->began/
{
	this->took = timestamp - self->began;
	@faults[execname] = count();
	@average[execname] = avg(this->took);
	@longest[execname] = max(this->took);
	self->began = 0;
}

END
{
	printf("%-16s %10s %13s %13s\n", "PROGRAM", "FAULTS", "AVERAGE ns", "LONGEST ns");
	printa("%-16s %@10d %@13d %@13d\n", @faults, @average, @longest);
}
