/* What init and the exec agent share. */
#ifndef PROBEKIT_VM_GUEST_H
#define PROBEKIT_VM_GUEST_H

/* Serve commands on FD (a raw tty) until it closes. NAME goes into temporary file names. */
void agent_serve(int fd, const char *name);

#endif
