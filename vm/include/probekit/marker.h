/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Static markers for C kernels and their modules.
 *
 *	#include <probekit/marker.h>
 *
 *	trace_mark(request_done, "sector %llu bytes %u error %d", sector, bytes, error);
 *
 * A marker names a place in the code and passes values to a tracer. While it is off
 * it costs one load immediate and a branch that is not taken; nothing is
 * linked, registered or initialized. probekit finds the markers of a running guest
 * in its memory and publishes them as probes:
 *
 *	probekit -r TARGET -n 'marker:MODULE:FUNCTION:request_done { @[args[2]] = count(); }'
 *
 * The format is that of printf, and the compiler checks it against the arguments.
 * It gives them their types (%d int, %s char *, %llu unsigned long long, %p void *);
 * text between the conversions is for people. A marker has at most ten arguments of
 * at most 64 bits each.
 *
 * A marker becomes:
 *
 *	__pk_markers_strings	name, format and arguments as text: out of the way of hot data
 *	__pk_markers_data	one struct pk_marker for each marker
 *	__pk_markers		one struct pk_marker_site for each place of optimized code (inlining makes several)
 *
 * The optimized form is
 *
 *	mov $0, %al ; test %al, %al ; jne ...		b0 00  84 c0  75 xx
 *
 * and is switched on by changing the immediate while processors run. Meanwhile an INT3
 * replaces the first byte, and a processor that meets it goes on
 * after the load. The register then has any value, so the call may be made or not,
 * and the function pointer is valid at every moment. Code that runs while an INT3 is
 * being handled cannot be switched this way. It must use the generic form, which loads
 * an ordinary variable:
 *
 *	_trace_mark(PK_GENERIC, int3_seen, "ip %p", (void *)ip);
 *
 * Preemption is off around the call, so that the function that is called can be freed
 * once every processor has been through a quiescent state.
 */
#ifndef PROBEKIT_MARKER_H
#define PROBEKIT_MARKER_H

#ifdef __KERNEL__
#include <linux/compiler.h>
#include <linux/preempt.h>
#include <linux/types.h>
#define __pk_preempt_off() preempt_disable_notrace()
#define __pk_preempt_on() preempt_enable_notrace()
#define __pk_once(x) READ_ONCE(x)
#else /* another kernel: define __pk_preempt_off() and __pk_preempt_on() if it has preemption */
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
#ifndef __pk_preempt_off
#define __pk_preempt_off() do { } while (0)
#define __pk_preempt_on() do { } while (0)
#endif
#define __pk_once(x) (*(volatile __typeof__(x) *)&(x))
#endif

/* probekit reads this in a running guest: any change from here to the macros needs another magic. */
#define PK_MARKER_MAGIC 0x316b72616d2d6b70		/* "pk-mark1" */
#define PK_MARKER_SITE_MAGIC 0x3165746973006b70	/* "pk\0site1" */

/* Flags. Without PK_GENERIC a marker is optimized. */
#define PK_OPTIMIZED 0
#define PK_GENERIC 1

struct pk_marker {
	u64 magic;
	const char *name;
	const char *format;
	const char *args;	/* the arguments as they are written in the source */
	const char *function;
	/* Never NULL: pk_marker_off() while the marker is off. Arguments are 64 bits each. */
	void (*call)(const struct pk_marker *marker, const char *format, ...);
	u32 flags;
	u32 state;		/* of the generic form: not 0 when on */
};

struct pk_marker_site {
	u64 magic;
	struct pk_marker *marker;
	void *load;		/* the two bytes b0+r imm8 */
};

static inline __attribute__((format(printf, 1, 2), __always_inline__, __unused__))
void __pk_check_format(__attribute__((__unused__)) const char *format, ...)
{
}

static __attribute__((__unused__, __noinline__))
void pk_marker_off(__attribute__((__unused__)) const struct pk_marker *marker,
		   __attribute__((__unused__)) const char *format, ...)
{
}

/* Each argument as 64 bits, sign-extended according to its type. */
#define __pk_as_1(a) , (long)(a)
#define __pk_as_0()
#define __pk_map_0()
#define __pk_map_1(a) __pk_as_1(a)
#define __pk_map_2(a, b...) __pk_as_1(a) __pk_map_1(b)
#define __pk_map_3(a, b...) __pk_as_1(a) __pk_map_2(b)
#define __pk_map_4(a, b...) __pk_as_1(a) __pk_map_3(b)
#define __pk_map_5(a, b...) __pk_as_1(a) __pk_map_4(b)
#define __pk_map_6(a, b...) __pk_as_1(a) __pk_map_5(b)
#define __pk_map_7(a, b...) __pk_as_1(a) __pk_map_6(b)
#define __pk_map_8(a, b...) __pk_as_1(a) __pk_map_7(b)
#define __pk_map_9(a, b...) __pk_as_1(a) __pk_map_8(b)
#define __pk_map_10(a, b...) __pk_as_1(a) __pk_map_9(b)
#define __pk_count_(z, a, b, c, d, e, f, g, h, i, j, n, rest...) n
#define __pk_count(args...) __pk_count_(0, ##args, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define __pk_text_(a) #a
#define __pk_text(a) __pk_text_(a)
#define __pk_paste_(a, b) a##b
#define __pk_paste(a, b) __pk_paste_(a, b)
#define __pk_map(args...) __pk_paste(__pk_map_, __pk_count(args))(args)

#define __pk_string(var, text)								\
	static const char var[] __attribute__((section("__pk_markers_strings"), used)) = text

/* The load immediate: 0 unless the marker is on. It is aligned, so that it does not cross cache lines. */
#define __pk_immediate(marker)								\
({											\
	unsigned char __pk_on;								\
	asm volatile(".pushsection __pk_markers, \"a\"\n\t"				\
		     ".balign 8\n\t"							\
		     ".quad " __pk_text(PK_MARKER_SITE_MAGIC) ", %c[data], 661f\n\t"	\
		     ".popsection\n\t"							\
		     ".balign 2\n"							\
		     "661:\tmovb $0, %[on]\n"						\
		     : [on] "=Q" (__pk_on)						\
		     : [data] "i" (&(marker)));						\
	__pk_on;									\
})

/* Like _trace_mark(), but an expression: 1 when the marker was found on, else 0. */
#define trace_mark_on(flag_bits, mark_name, mark_format, mark_args...)			\
({											\
	__pk_string(__pk_name, #mark_name);						\
	__pk_string(__pk_format, mark_format);						\
	__pk_string(__pk_args, #mark_args);						\
	static struct pk_marker __pk_marker_##mark_name					\
	__attribute__((section("__pk_markers_data"), aligned(8), used)) = {		\
		.magic = PK_MARKER_MAGIC,						\
		.name = __pk_name,							\
		.format = __pk_format,							\
		.args = __pk_args,							\
		.function = __func__,							\
		.call = pk_marker_off,							\
		.flags = (flag_bits),							\
	};										\
	int __pk_found;									\
	if (0)										\
		__pk_check_format(" " mark_format, ##mark_args);			\
	if ((flag_bits) & PK_GENERIC)							\
		__pk_found = __pk_once(__pk_marker_##mark_name.state) != 0;		\
	else										\
		__pk_found = __pk_immediate(__pk_marker_##mark_name) != 0;		\
	if (__builtin_expect(__pk_found, 0)) {						\
		__pk_preempt_off();							\
		__pk_once(__pk_marker_##mark_name.call)(&__pk_marker_##mark_name,	\
			__pk_format __pk_map(mark_args));				\
		__pk_preempt_on();							\
	}										\
	__pk_found;									\
})

#define _trace_mark(flag_bits, mark_name, mark_format, mark_args...)			\
	((void)trace_mark_on(flag_bits, mark_name, mark_format, ##mark_args))

#define trace_mark(mark_name, mark_format, mark_args...)				\
	_trace_mark(PK_OPTIMIZED, mark_name, mark_format, ##mark_args)

#endif /* PROBEKIT_MARKER_H */
