// SPDX-License-Identifier: GPL-2.0
/*
 * Markers as a hostile or damaged guest may have them: each is wrong in its own way, except for one good marker.
 * Any write to /proc/pk_broken executes the good one.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

#include <probekit/marker.h>

static char not_code[16];
static char long_name[300];

#define BROKEN(var, ...)								\
	static struct pk_marker var __attribute__((section("__pk_markers_data"), aligned(8), used)) = {	\
		.magic = PK_MARKER_MAGIC, .name = #var, .format = "x %d", .args = "1", .function = "none",	\
		.call = pk_marker_off, .flags = PK_GENERIC, __VA_ARGS__ }

BROKEN(half_conversion, .format = "x %d y %");
BROKEN(unknown_conversion, .format = "x %Q");
BROKEN(a_float, .format = "x %f");
BROKEN(a_star, .format = "x %*d");
BROKEN(eleven, .format = "%d %d %d %d %d %d %d %d %d %d %d");
BROKEN(wild_format, .format = (const char *)0x1234);
BROKEN(null_format, .format = NULL);
BROKEN(wild_call, .call = (void *)0xdead000000000000);
BROKEN(call_into_data, .call = (void *)not_code);
BROKEN(flags_of_another, .flags = 0x80);
static struct pk_marker wild_name __attribute__((section("__pk_markers_data"), aligned(8), used)) = {
	.magic = PK_MARKER_MAGIC, .name = (const char *)0xffffffffffffff00, .format = "", .args = "", .function = "none",
	.call = pk_marker_off, .flags = PK_GENERIC };
static struct pk_marker endless_name __attribute__((section("__pk_markers_data"), aligned(8), used)) = {
	.magic = PK_MARKER_MAGIC, .name = long_name, .format = "", .args = "", .function = "none",
	.call = pk_marker_off, .flags = PK_GENERIC };
static struct pk_marker control_name __attribute__((section("__pk_markers_data"), aligned(8), used)) = {
	.magic = PK_MARKER_MAGIC, .name = "a\033[2Jb", .format = "", .args = "", .function = "none",
	.call = pk_marker_off, .flags = PK_GENERIC };
/* Optimized, and their sites are not a load immediate, not in the text, and of another marker. */
BROKEN(site_is_no_load, .flags = PK_OPTIMIZED);
BROKEN(site_is_no_text, .flags = PK_OPTIMIZED);
BROKEN(no_site, .flags = PK_OPTIMIZED);

static ssize_t drive(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	trace_mark(good, "size %lu", size);
	return size;
}

static const struct pk_marker_site wrong_sites[] __attribute__((section("__pk_markers"), used)) = {
	{ PK_MARKER_SITE_MAGIC, &site_is_no_load, drive },
	{ PK_MARKER_SITE_MAGIC, &site_is_no_text, not_code },
	{ PK_MARKER_SITE_MAGIC, (struct pk_marker *)0xffffffff00000000, drive },
};

static const struct proc_ops operations = { .proc_write = drive };

static int __init pk_broken_init(void)
{
	memset(long_name, 'x', sizeof(long_name));
	return proc_create("pk_broken", 0600, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit pk_broken_exit(void)
{
	remove_proc_entry("pk_broken", NULL);
}

module_init(pk_broken_init);
module_exit(pk_broken_exit);
MODULE_DESCRIPTION("Broken markers");
MODULE_LICENSE("GPL");
