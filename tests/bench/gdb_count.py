# Run by gdb's own Python (gdb -x), not by the bench's: the fastest counting breakpoint that gdb has.
import os
import time

import gdb

FIRINGS = int(os.environ["BENCH_FIRINGS"])


class Count(gdb.Breakpoint):
    """Counts in Python and never stops, but at the last firing."""

    count = 0
    first = last = 0.0

    def stop(self) -> bool:
        self.count += 1
        self.last = time.monotonic()
        if self.count == 1:
            self.first = self.last
        return self.count > FIRINGS


for setting in (
    "architecture i386:x86-64",
    "pagination off",
    "confirm off",
    "breakpoint always-inserted on",
    "remotetimeout 20",
):
    gdb.execute(f"set {setting}")
gdb.execute(f"target remote {os.environ['BENCH_SOCKET']}", to_string=True)
point = Count(f"*{os.environ['BENCH_ADDRESS']}")
gdb.execute("continue", to_string=True)
seconds = point.last - point.first
point.delete()
gdb.execute("detach", to_string=True)
print(f"BENCH {FIRINGS / seconds}")
