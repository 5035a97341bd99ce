"""Has the texts of ``--help``."""

from __future__ import annotations

__all__ = ("RECOVER_HELP", "RECOVER_USAGE", "TRACE_HELP", "TRACE_USAGE")

TRACE_USAGE = """\
usage: probekit [-r TARGET] [-CeFHlqSvVwZ] [-b SIZE] [-c CMD] [-o FILE] [-p PID] [-x OPT[=VAL]]
                [-n|-f|-m|-P|-i PROBE[[/PRED/]{CLAUSE}]] [-s FILE] [ARG...]
       probekit recover [-r TARGET]"""

RECOVER_USAGE = "usage: probekit recover [-r TARGET] [-v] [--json]"

TRACE_HELP = f"""\
{TRACE_USAGE}

DTrace for a virtual machine that you do not have to change: attach to a running
QEMU guest through its gdb stub, trace its kernel with D, leave it as it was.

the program (each repeatable, in any order; later ones see earlier ones' variables):
  -n PROBE[CLAUSE]    probes by name: [[[provider:]module:]function:]name, or a clause
  -f FUNCTION[CLAUSE] probes by function: [[provider:]module:]function
  -m MODULE[CLAUSE]   probes by module: [provider:]module
  -P PROVIDER[CLAUSE] probes by provider
  -i ID[CLAUSE]       a probe by the number that -l shows
  -s FILE             a D script (- is standard input)
  ARG...              what $1, $2 ... stand for in it

what to do with it:
  -l                  list the probes that match instead of enabling them
  -e                  end when the program is compiled
  -S                  show the compiled program: intermediate code, and what the guest runs
  -v                  report stability and argument types; refused probes; what things took, and each clause
  -V                  print the version
  -w                  allow destructive actions
  -Z                  allow probe descriptions that match nothing, or nothing that can be enabled
  -c COMMAND          run a command, end when it ends; $target is its process
  -p PID              end when this process of the host ends; $target is it

output:
  -q                  only what the program prints
  -F                  indent by function entry and return
  -o FILE             append to a file
  --json              one JSON object a line

options and the compiler:
  -x OPT[=VAL]        set an option, as `#pragma D option` does; -b SIZE is bufsize
  -C                  run the C preprocessor over scripts; -D NAME[=VAL] -U NAME -I DIR
                      are passed on, -H shows what it includes, -X a|c|s|t how strict it is
  -L DIR              a directory of D libraries (*.d), compiled first

the guest:
  -r TARGET           HOST:PORT, tcp:HOST:PORT   QEMU's -s or -gdb tcp::PORT
                      unix:PATH                  a gdb stub on a unix socket
                      gdb:STRING                 through gdb, whatever its `target remote` takes
                      none                       no guest: BEGIN, END, tick-N and profile-N only
                      (default: the only QEMU of this host that has a gdb stub)
  --engine ENGINE     guest: clauses run in the guest (the default); stop: it is stopped each time
  --symbols FILE      an ELF with symbols, a System.map or a saved kallsyms
  --ram FILE          the guest's shared RAM file (found by itself on this host; none: do without)
  --qmp PATH          QEMU's QMP socket, to hear at once when the guest reboots or dies
  --no-cache          read symbols and types from the guest anew
  --timeout SECONDS   limit for connecting (default: 5)

examples:
  probekit -r unix:/run/vm/gdb.sock -n 'fbt::sys_*:entry {{ @[probefunc] = count(); }}'
        count system calls by function until Ctrl-C
  probekit -r localhost:1234 -n 'fbt::vfs_read:return {{ @[execname] = quantize(arg1); }}'
        sizes of reads, by program
  probekit -r localhost:1234 -f 'tcp_*' -n 'tick-5s {{ exit(0); }}'
        a line for every TCP function that is entered or left, for five seconds
  probekit -r localhost:1234 -l -n 'fbt::*read*:entry'
        list probes by name
  probekit -r none -n 'BEGIN {{ printf("%d\\n", $1 * 2); exit(0); }}' 21
        D without any guest
  probekit recover -r localhost:1234
        put a guest right after a probekit that was killed

exit status: 0, or what exit() was given; 1 on errors; 2 on a wrong command line.
environment: PROBEKIT_TARGET stands in for -r; DTRACE_OPT_name=value for -x.
"""

RECOVER_HELP = f"""\
{RECOVER_USAGE}

Restore a guest that a killed probekit left changed: every site gets its original
bytes back, borrowed tasks their registers, and probekit's memory is freed. On a
guest that is clean it says so. Safe to run at any time, and again.

  -r TARGET           the guest's gdb stub: HOST:PORT, unix:PATH, gdb:STRING
  --symbols FILE      an ELF with symbols, a System.map or a saved kallsyms
  --ram FILE, --qmp PATH, --no-cache, --timeout SECONDS
                      as for tracing: see probekit --help
  --json              the result as a JSON object
  -v                  show progress
"""
