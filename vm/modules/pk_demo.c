// SPDX-License-Identifier: GPL-2.0
/*
 * Markers to trace. /proc/pk_demo runs them:
 *
 *	echo hot N >/proc/pk_demo	execute the marker "hot" N times on this CPU
 *	echo typed N			execute "typed" N times, with arguments that depend on the turn
 *	echo generic N			execute "generic" N times
 *	echo many N			execute each of m000 .. m999 N times
 *	echo sleepy MS			execute "sleepy", sleep that long in the same function, execute "woken"
 *	cat /proc/pk_demo		for each CPU, how often "hot" was found on and off since the module was loaded
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include <probekit/marker.h>

static DEFINE_PER_CPU(u64, hot_on);
static DEFINE_PER_CPU(u64, hot_off);

static noinline void hot(unsigned long turn)
{
	if (trace_mark_on(PK_OPTIMIZED, hot, "turn %lu", turn))
		this_cpu_inc(hot_on);
	else
		this_cpu_inc(hot_off);
}

struct thing {
	int small;
};

static noinline void typed(unsigned long turn)
{
	static struct thing thing;

	trace_mark(typed, "signed %d unsigned %u text %s long %ld huge %llu thing %p char %c hex %#x short %hd byte %hhu",
		   -(int)turn, 0x80000000u + (unsigned int)turn, turn & 1 ? "odd" : "even", -(long)turn,
		   0x8000000000000000ull + turn, &thing, 'a' + (int)(turn & 7), 0xf0u, (short)-turn,
		   (unsigned char)turn);
}

static noinline void generic(unsigned long turn)
{
	_trace_mark(PK_GENERIC, generic, "turn %lu", turn);
}

static noinline void bare(void)
{
	trace_mark(bare, "");
}

/* Inlined twice: one marker, two places. */
static __always_inline void inlined(unsigned long turn)
{
	trace_mark(inlined, "turn %lu", turn);
}

static noinline void first_user(unsigned long turn)
{
	inlined(turn);
}

static noinline void second_user(unsigned long turn)
{
	inlined(turn + 1000);
}

#define M1(n) trace_mark(m##n, "turn %lu number %d", turn, 1##n - 1000)
#define M10(n) M1(n##0); M1(n##1); M1(n##2); M1(n##3); M1(n##4); M1(n##5); M1(n##6); M1(n##7); M1(n##8); M1(n##9)
#define M100(n) static noinline void many##n(unsigned long turn) { \
	M10(n##0); M10(n##1); M10(n##2); M10(n##3); M10(n##4); M10(n##5); M10(n##6); M10(n##7); M10(n##8); M10(n##9); }
M100(0) M100(1) M100(2) M100(3) M100(4) M100(5) M100(6) M100(7) M100(8) M100(9)

static void many(unsigned long turn)
{
	many0(turn); many1(turn); many2(turn); many3(turn); many4(turn);
	many5(turn); many6(turn); many7(turn); many8(turn); many9(turn);
}

static noinline void sleepy(unsigned long ms)
{
	trace_mark(sleepy, "ms %lu", ms);
	msleep_interruptible(ms);
	trace_mark(woken, "ms %lu", ms);
}

static void others(unsigned long turn)
{
	bare();
	first_user(turn);
	second_user(turn);
}

static const struct {
	const char *name;
	void (*pass)(unsigned long turn);
} commands[] = {
	{ "hot", hot }, { "typed", typed }, { "generic", generic }, { "many", many }, { "others", others },
};

static ssize_t drive(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	char text[64], name[16];
	unsigned long count, turn;
	int i;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	text[size] = 0;
	if (sscanf(text, "%15s %lu", name, &count) != 2)
		return -EINVAL;
	if (!strcmp(name, "sleepy")) {
		sleepy(count);
		return size;
	}
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i].name))
			continue;
		for (turn = 0; turn < count; turn++) {
			commands[i].pass(turn);
			if (!(turn & 0xfff))
				cond_resched();
		}
		return size;
	}
	return -EINVAL;
}

static int show(struct seq_file *out, void *unused)
{
	int cpu;

	for_each_possible_cpu(cpu)
		seq_printf(out, "%d %llu %llu\n", cpu, per_cpu(hot_on, cpu), per_cpu(hot_off, cpu));
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static const struct proc_ops operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = drive,
};

static int __init pk_demo_init(void)
{
	return proc_create("pk_demo", 0600, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit pk_demo_exit(void)
{
	remove_proc_entry("pk_demo", NULL);
}

module_init(pk_demo_init);
module_exit(pk_demo_exit);
MODULE_DESCRIPTION("Markers to trace");
MODULE_LICENSE("GPL");
