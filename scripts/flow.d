#!/usr/bin/env -S probekit -s
/*
 * flow.d - show every kernel function that one system call runs, indented, once.
 *
 *    probekit -r TARGET -s flow.d openat cat      how cat opens its first file
 *
 * Enables every function of the kernel, and records only those of the call.
 * Needs: the kernel's types (BTF) for self->.
 *
 * Sample output:
 *
 *   CPU FUNCTION
 *     0  => openat
 *     0    -> do_sys_openat2
 *     0      -> getname
 *     0      <- getname
 *     ...
 */
#pragma D option flowindent

syscall::$1:entry
/execname == $$2 && !done/
{
	done = 1;
	self->in = 1;
}

fbt:::
/self->in/
{
}

syscall::$1:return
/self->in/
{
	self->in = 0;
	exit(0);
}
