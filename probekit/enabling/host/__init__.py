"""Evaluate clauses on the host: those of the host's own probes, and those of a stopped vCPU.

A firing's *world* is the source of its arguments and of built-in variables about the task.

- ``firing``    run the clauses of one firing with the interpreter; take arguments and built-ins from this process
- ``probes``    fire BEGIN, END, ERROR, tick-N and profile-N, and keep their records
- ``vcpu``      take arguments and built-ins from a stopped vCPU: registers, memory, tasks
- ``dentries``  read the path of a directory from guest memory
"""
