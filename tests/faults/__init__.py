"""Faults of processes, servers and networks, made on purpose, on real Redis servers.

Worker processes (`_worker`) count in shared sessions and write down what they were told; meanwhile a test does damage
(`_harness` and `_proxy` help with that); in the end `_invariants` compares what the workers were told with what the
server has. `make test` runs short forms, `make faults` the long ones, `make soak` the very long one.
"""
