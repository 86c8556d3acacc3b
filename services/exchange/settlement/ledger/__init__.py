"""The books: what each event of the engine posts, in memory; no I/O."""
