"""The deterministic heart: `events = engine.apply(sequence, time_ns, command)`.

Pure: no I/O, no clock, no randomness, no logging. Time, sequence and ids arrive with the command, so that the leader,
its followers, recovery and simulation all run the same line. Compiled by mypyc where a compiler is at hand.
"""
