#!/usr/bin/env -S probekit -s
/*
 * allocs.d - count allocations from the kernel's slabs by program and caller, for ten seconds.
 *
 * kmem_cache_alloc() serves most of the kernel's objects. Prints the twenty most frequent pairs.
 * Needs: the kernel's types (BTF) for execname.
 *
 * Sample output (its end):
 *
 *   sh               vmlinux`vm_area_alloc                                   812
 *   sh               vmlinux`getname_flags                                   955
 */
#pragma D option quiet

fbt::kmem_cache_alloc*:entry
{
	@[execname, func(caller)] = count();
}

tick-10s
{
	exit(0);
}

END
{
	trunc(@, 20);
	printa("%-16s %-48a %@10d\n", @);
}
