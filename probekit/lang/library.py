"""Declare, in D, what DTrace's own D libraries declare. Only a script that names some of it gets it.

curpsinfo->pr_psargs   ->  the translator of psinfo_t, whose pr_psargs is execargs
"""

from __future__ import annotations

import re

__all__ = ("LIBRARY", "TYPES", "is_named_in")

LIBRARY = """
typedef struct cpuinfo {
    processorid_t cpu_id; int cpu_pset; int cpu_chip; int cpu_lgrp; uintptr_t cpu_info;
} cpuinfo_t;
translator cpuinfo_t < int CPU > { cpu_id = CPU; cpu_pset = 0; cpu_chip = CPU; cpu_lgrp = 0; cpu_info = 0; };
inline cpuinfo_t *curcpu = xlate <cpuinfo_t *> (cpu);

typedef struct psinfo {
    int pr_nlwp; pid_t pr_pid; pid_t pr_ppid; pid_t pr_pgid; pid_t pr_sid; uid_t pr_uid; uid_t pr_euid;
    gid_t pr_gid; gid_t pr_egid; uintptr_t pr_addr; dev_t pr_ttydev; string pr_fname; string pr_psargs;
} psinfo_t;
translator psinfo_t < int PID > {
    pr_nlwp = 1; pr_pid = PID; pr_ppid = ppid; pr_pgid = 0; pr_sid = 0; pr_uid = uid; pr_euid = uid; pr_gid = gid;
    pr_egid = gid; pr_addr = (uintptr_t)curthread; pr_ttydev = 0; pr_fname = execname; pr_psargs = execargs;
};
inline psinfo_t *curpsinfo = xlate <psinfo_t *> (pid);

typedef struct lwpsinfo {
    int pr_flag; id_t pr_lwpid; uintptr_t pr_addr; uintptr_t pr_wchan; char pr_stype; char pr_state; char pr_sname;
    short pr_syscall; int pr_pri; char pr_clname[8]; processorid_t pr_onpro; string pr_name;
} lwpsinfo_t;
translator lwpsinfo_t < int TID > {
    pr_flag = 0; pr_lwpid = TID; pr_addr = (uintptr_t)curthread; pr_wchan = 0; pr_stype = 0; pr_state = 2;
    pr_sname = 'O'; pr_syscall = 0; pr_pri = 0; pr_clname = "TS"; pr_onpro = cpu; pr_name = execname;
};
inline lwpsinfo_t *curlwpsinfo = xlate <lwpsinfo_t *> (tid);
"""

TYPES = ("cpuinfo_t", "psinfo_t", "lwpsinfo_t")
_NAMED = re.compile(r"\b(?:curcpu|curpsinfo|curlwpsinfo|cpuinfo_t|psinfo_t|lwpsinfo_t)\b")


def is_named_in(text: str) -> bool:
    """Tell whether a script names something of the library."""
    return _NAMED.search(text) is not None
