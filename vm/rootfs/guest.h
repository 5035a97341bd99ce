/* Shared by init and the exec agent. */
#ifndef PROBEKIT_VM_GUEST_H
#define PROBEKIT_VM_GUEST_H

/* Serve commands on FD (a raw tty) until it closes. NAME becomes part of temporary file names. */
void agent_serve(int fd, const char *name);

#endif
