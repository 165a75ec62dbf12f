"""How equal nodes agree on one successor for each head, and carry it to each other.

`paxos` and `core` are pure: messages in; writes, messages and decisions out. No sockets, clocks, threads or chance live
there, so that the simulation in tests/peers runs the very code that nodes run. `council` drives them on real links, a
real disk and a real ledger. Nothing in here knows services or the command line.
"""
