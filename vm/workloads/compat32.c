/*
 * compat32 N int80|vdso: make system calls as a 32-bit program, N rounds of them.
 *
 * It is an i386 program without a C library. It enters the kernel by "int 0x80", or by the entry that the kernel gives
 * such programs (AT_SYSINFO), which uses sysenter or syscall, whatever the CPU has. A round is openat, write of 7 bytes,
 * lseek, read, a write that fails with EBADF, close and getppid. It prints one JSON line with its last write:
 *
 *     {"workload":"compat32","rounds":20,"entry":"vdso","wrong":0}
 *
 * "wrong" counts results that are not what they must be.
 */
enum { EXIT = 1, READ = 3, WRITE = 4, CLOSE = 6, LSEEK = 19, GETPPID = 64, OPENAT = 295 };

enum { AT_SYSINFO = 32, AT_FDCWD = -100, O_RDWR_CREAT_TRUNC = 01102, EBADF = 9, SIZE = 7, TO = 3 };

static unsigned long fast_entry;
static int use_fast;

static long call(long number, long a, long b, long c, long d)
{
	long result;

	if (use_fast)
		__asm__ volatile("call *%[entry]"
				 : "=a"(result)
				 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), [entry] "m"(fast_entry)
				 : "memory", "cc");
	else
		__asm__ volatile("int $0x80"
				 : "=a"(result)
				 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d)
				 : "memory", "cc");
	return result;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static char *text(char *to, const char *from)
{
	while (*from)
		*to++ = *from++;
	return to;
}

static char *number(char *to, unsigned value)
{
	char digits[12], *at = digits + sizeof digits;

	*--at = 0;
	do
		*--at = '0' + value % 10;
	while (value /= 10);
	return text(to, at);
}

static int round_of_calls(void)
{
	char buffer[SIZE];
	long file = call(OPENAT, AT_FDCWD, (long)"/tmp/compat32", O_RDWR_CREAT_TRUNC, 0600);
	int wrong = file < 0;

	wrong += call(WRITE, file, (long)"32 bits", SIZE, 0) != SIZE;
	wrong += call(LSEEK, file, TO, 0, 0) != TO;
	wrong += call(READ, file, (long)buffer, SIZE, 0) != SIZE - TO;
	wrong += call(WRITE, -1, (long)buffer, SIZE, 0) != -EBADF;
	wrong += call(CLOSE, file, 0, 0, 0) != 0;
	wrong += call(GETPPID, 0, 0, 0, 0) < 0;
	return wrong;
}

__attribute__((used)) void begin(unsigned long *stack)
{
	long count = stack[0];
	char **argv = (char **)(stack + 1), line[128], *end;
	unsigned long *aux = stack + 1 + count + 1;
	unsigned rounds = 0, wrong = 0;

	while (*aux++)
		; /* the environment */
	for (; aux[0]; aux += 2)
		if (aux[0] == AT_SYSINFO)
			fast_entry = aux[1];
	if (count > 1)
		for (const char *digit = argv[1]; *digit >= '0' && *digit <= '9'; digit++)
			rounds = rounds * 10 + *digit - '0';
	use_fast = count > 2 && same(argv[2], "vdso");
	if (!rounds || count != 3 || (use_fast && !fast_entry))
		call(EXIT, 2, 0, 0, 0);
	for (unsigned n = 0; n < rounds; n++)
		wrong += round_of_calls();
	end = number(text(line, "{\"workload\":\"compat32\",\"rounds\":"), rounds);
	end = text(text(text(end, ",\"entry\":\""), argv[2]), "\",\"wrong\":");
	end = text(number(end, wrong), "}\n");
	call(WRITE, 1, (long)line, end - line, 0);
	call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n"
	"_start:\n"
	"	mov %esp, %eax\n"
	"	and $-16, %esp\n"
	"	sub $12, %esp\n"
	"	push %eax\n"
	"	call begin\n");
