"""What `test_apart.py` runs as a child: says its environment and words, fails, or waits for ever."""

import os
import sys
import time

from exchange.trading import apart

match sys.argv[1:]:
    case ["tell", *words]:
        apart.idle_only()
        names = sorted(name for name in os.environ if name != "LC_CTYPE")  # Python's own, of a plain locale
        print(os.sched_getscheduler(0) == os.SCHED_IDLE, names, os.environ["DATABASE_URL"], *words)
    case ["fail"]:
        print("half an answer", flush=True)
        sys.exit("x" * 10_000 + " out of luck")
    case ["hang"]:
        print(os.getpid(), flush=True)
        time.sleep(600)
