"""probekit: DTrace for a virtual machine that you do not have to change."""
