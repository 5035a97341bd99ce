"""List the integer constants that DTrace's own libraries define on Linux, by the kernel's header that has them.

The values are those of x86-64. A script may define a name of this list for itself; its own definition wins.
"""

from __future__ import annotations

import errno
import signal

__all__ = ("CONSTANTS",)

_ERRORS = {
    **{name: number for number, name in errno.errorcode.items()},
    "EAGAIN": 11,
    "EWOULDBLOCK": 11,
    "EDEADLK": 35,
    "EDEADLOCK": 35,
    "EOPNOTSUPP": 95,
    "ENOTSUP": 95,
    "EHWPOISON": 133,
}
"""``asm-generic/errno.h``. Python names one error for each number, so the other names are listed here."""

_SIGNALS = {
    **{s.name: s.value for s in signal.Signals},
    "SIGIOT": 6,
    "SIGSTKFLT": 16,
    "SIGCLD": 17,
    "SIGPOLL": 29,
}
"""``asm/signal.h``, and SIGCLD, System V's name of SIGCHLD."""

_OPEN_FLAGS = {
    "O_ACCMODE": 0o3,
    "O_RDONLY": 0o0,
    "O_WRONLY": 0o1,
    "O_RDWR": 0o2,
    "O_CREAT": 0o100,
    "O_EXCL": 0o200,
    "O_NOCTTY": 0o400,
    "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000,
    "O_NONBLOCK": 0o4000,
    "O_NDELAY": 0o4000,
    "O_DSYNC": 0o10000,
    "O_ASYNC": 0o20000,
    "O_DIRECT": 0o40000,
    "O_LARGEFILE": 0o100000,
    "O_DIRECTORY": 0o200000,
    "O_NOFOLLOW": 0o400000,
    "O_NOATIME": 0o1000000,
    "O_CLOEXEC": 0o2000000,
    "O_SYNC": 0o4010000,
    "O_FSYNC": 0o4010000,
    "O_RSYNC": 0o4010000,
    "O_PATH": 0o10000000,
    "O_TMPFILE": 0o20200000,
}
"""``asm-generic/fcntl.h``; the C library has O_FSYNC and O_RSYNC."""

_PROTOCOLS = {
    "AF_UNSPEC": 0,
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "ARPHRD_ETHER": 1,
    "ARPHRD_INFINIBAND": 32,
    "IPPROTO_IP": 0,
    "IPPROTO_HOPOPTS": 0,
    "IPPROTO_ICMP": 1,
    "IPPROTO_IGMP": 2,
    "IPPROTO_IPIP": 4,
    "IPPROTO_TCP": 6,
    "IPPROTO_EGP": 8,
    "IPPROTO_PUP": 12,
    "IPPROTO_UDP": 17,
    "IPPROTO_IDP": 22,
    "IPPROTO_TP": 29,
    "IPPROTO_DCCP": 33,
    "IPPROTO_IPV6": 41,
    "IPPROTO_ROUTING": 43,
    "IPPROTO_FRAGMENT": 44,
    "IPPROTO_RSVP": 46,
    "IPPROTO_GRE": 47,
    "IPPROTO_ESP": 50,
    "IPPROTO_AH": 51,
    "IPPROTO_ICMPV6": 58,
    "IPPROTO_NONE": 59,
    "IPPROTO_DSTOPTS": 60,
    "IPPROTO_OSPF": 89,
    "IPPROTO_MTP": 92,
    "IPPROTO_BEETPH": 94,
    "IPPROTO_ENCAP": 98,
    "IPPROTO_PIM": 103,
    "IPPROTO_COMP": 108,
    "IPPROTO_SCTP": 132,
    "IPPROTO_MH": 135,
    "IPPROTO_UDPLITE": 136,
    "IPPROTO_RAW": 255,
    "IPPROTO_MAX": 256,
}
"""``linux/in.h`` and ``linux/in6.h``, ``linux/socket.h``, ``linux/if_arp.h``; OSPF has its number from IANA."""

_TCP = {
    "TCP_MIN_HEADER_LENGTH": 20,
    "TCP_STATE_IDLE": 0,
    "TCP_STATE_ESTABLISHED": 1,
    "TCP_STATE_SYN_SENT": 2,
    "TCP_STATE_SYN_RECEIVED": 3,
    "TCP_STATE_FIN_WAIT_1": 4,
    "TCP_STATE_FIN_WAIT_2": 5,
    "TCP_STATE_TIME_WAIT": 6,
    "TCP_STATE_CLOSED": 7,
    "TCP_STATE_CLOSE_WAIT": 8,
    "TCP_STATE_LAST_ACK": 9,
    "TCP_STATE_LISTEN": 10,
    "TCP_STATE_CLOSING": 11,
    "TH_FIN": 0x01,
    "TH_SYN": 0x02,
    "TH_RST": 0x04,
    "TH_PSH": 0x08,
    "TH_PUSH": 0x08,
    "TH_ACK": 0x10,
    "TH_URG": 0x20,
    "TH_ECE": 0x40,
    "TH_CWR": 0x80,
}
"""The states of ``net/tcp_states.h`` by DTrace's names, and the flags of a TCP header (RFC 9293)."""

_BUFFERS = {
    "B_BUSY": 0x001,
    "B_DONE": 0x002,
    "B_ERROR": 0x004,
    "B_PAGEIO": 0x010,
    "B_PHYS": 0x020,
    "B_READ": 0x040,
    "B_WRITE": 0x100,
    "B_ASYNC": 0x400,
}
"""The bits of ``b_flags`` of a ``bufinfo_t``. DTrace defines them; the kernel does not have them."""

_CAPTURES = {
    "PCAP_NULL": 0,
    "PCAP_ETHER": 1,
    "PCAP_PPP": 9,
    "PCAP_IP": 12,
    "PCAP_WIFI": 105,
    "PCAP_IPOIB": 242,
}
"""The second argument of ``pcap()``: libpcap's link types."""

_PROCESSES = {
    "CLD_EXITED": 1,
    "CLD_KILLED": 2,
    "CLD_DUMPED": 3,
    "CLD_TRAPPED": 4,
    "CLD_STOPPED": 5,
    "CLD_CONTINUED": 6,
    "PR_STOPPED": 0x00000001,
    "PR_ISTOP": 0x00000002,
    "PR_DSTOP": 0x00000004,
    "PR_IDLE": 0x10000000,
    "PR_MODEL_ILP32": 1,
    "PR_MODEL_LP64": 2,
    "SSLEEP": 1,
    "SRUN": 2,
    "SZOMB": 3,
    "SSTOP": 4,
    "SIDL": 5,
    "SONPROC": 6,
    "SWAIT": 7,
}
"""The codes of SIGCHLD (``asm-generic/siginfo.h``), and the values of ``pr_flag``, ``pr_dmodel`` and ``pr_state``."""

_FAULTS = {
    "DTRACEFLT_UNKNOWN": 0,
    "DTRACEFLT_BADADDR": 1,
    "DTRACEFLT_BADALIGN": 2,
    "DTRACEFLT_ILLOP": 3,
    "DTRACEFLT_DIVZERO": 4,
    "DTRACEFLT_NOSCRATCH": 5,
    "DTRACEFLT_KPRIV": 6,
    "DTRACEFLT_UPRIV": 7,
    "DTRACEFLT_TUPOFLOW": 8,
    "DTRACEFLT_BADSTACK": 9,
}
"""``arg4`` of ERROR."""

CONSTANTS: dict[str, int] = {
    **_ERRORS,
    **_SIGNALS,
    **_OPEN_FLAGS,
    **_PROTOCOLS,
    **_TCP,
    **_BUFFERS,
    **_CAPTURES,
    **_PROCESSES,
    **_FAULTS,
}
"""The value of each constant; all are of type ``int``."""
