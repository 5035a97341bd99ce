"""Clauses that the host evaluates: those that it fires itself, and those of a stopped vCPU.

- ``firing``    clauses that the host fires: BEGIN, END, ERROR, tick-N
- ``probes``    the order of those probes, and when a timer is due
- ``vcpu``      a stopped vCPU as a firing's world: registers, memory, tasks
- ``dentries``  the path of a directory, read from guest memory
"""
