"""Replicas: every instance holds the same core; one leads, the others follow the journal and forward to it.

`replica.py` is an instance's life, `follower.py` its core while it follows, `uplink.py` and `downlinks.py` the two ends of
the stream between them, `compare.py` the state of all side by side. Clock, journal, lease and transport are arguments, so
that the simulation runs this very code.
"""
