#!/usr/bin/env -S probekit -s
/*
 * oncpu.d - show where the guest's CPUs spend their time in the kernel.
 *
 * Takes 97 samples a second of each CPU, for ten seconds. Prints the twenty most frequent stacks; omits the idle task.
 * Needs: the kernel's types (BTF) for execname and pid, the kernel's unwind tables (ORC) for the stacks.
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
