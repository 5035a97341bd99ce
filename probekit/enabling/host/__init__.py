"""Evaluate clauses on the host: those that it fires itself, and those of a stopped vCPU.

- ``firing``    run the clauses of one firing with the interpreter; the host process as a firing's world
- ``probes``    fire BEGIN, END, ERROR, tick-N and profile-N, and keep their records
- ``vcpu``      a stopped vCPU as a firing's world: registers, memory, tasks
- ``dentries``  read the path of a directory from guest memory
"""
