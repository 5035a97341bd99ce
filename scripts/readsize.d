#!/usr/bin/env -S probekit -s
/*
 * readsize.d - show how many bytes each read of a file returns, by program.
 *
 * vfs_read() returns the number of bytes, or a negative error.
 * Needs: the kernel's types (BTF) for execname. Ends with Ctrl-C.
 *
 * Sample output:
 *
 *   cat
 *            value  ------------- Distribution ------------- count
 *               -1 |                                         0
 *                0 |@@@@@@@@@@@@@@@@@@@@                     4
 *                1 |                                         0
 *             4096 |@@@@@@@@@@@@@@@@@@@@                     4
 *             8192 |                                         0
 */
#pragma D option quiet

fbt::vfs_read:return
{
	@size[execname] = quantize((long)arg1);
}
