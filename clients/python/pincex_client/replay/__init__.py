"""`pincex replay`: plays a recorded order flow through a running exchange and compares what it made of it.

`flow` reads the files, `plan` says which market and account a run uses, `player` sends, `fills` gathers, `compare`
compares, `run` puts them together. `flow`, `fills` and `compare` are pure.
"""
