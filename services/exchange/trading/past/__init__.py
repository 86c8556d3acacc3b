"""The past, from the journal: a book as it was after any sequence that is retained, and the proof of a stretch.

Where the journal is a database a child process does the work (`__main__.py`); a journal in memory is read where it is.
"""
