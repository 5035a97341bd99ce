#!/usr/bin/env -S probekit -s
/*
 * oncpu.d - where the guest's CPUs spend their time in its kernel: 97 samples a second on each, for ten seconds.
 *
 * Prints the twenty most frequent stacks; the idle task is left out.
 *
 * Sample output (its end):
 *
 *   dd
 *                 vmlinux`copy_user_generic+0x5
 *                 vmlinux`copy_page_to_iter+0x9b
 *                 ...
 *                  211
 */
#pragma D option quiet

profile-97
/pid/
{
	@[execname, stack()] = count();
}

tick-10s
{
	exit(0);
}

END
{
	trunc(@, 20);
}
