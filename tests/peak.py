"""How much memory reading takes, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

READ = """
import re, sys
from pathlib import Path
from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit

def peak(path):
    (unit,) = cut_units(input_files([Path(path)]), 1 << 40)
    for _ in read_unit(unit, ReadRules(limit=int(sys.argv[3]))):
        pass
    # not ru_maxrss: that begins with what the parent had
    return int(re.search("VmHWM:\\\\s+(\\\\d+)", Path("/proc/self/status").read_text())[1])

small, large = map(peak, sys.argv[1:3])
print(large - small >> 10)
"""


def grown_mib(small: Path, large: Path, *, limit: int = 50_000_000) -> int:
    """MiB that reading a large file takes at most, beyond what a small one did before it."""
    words = [sys.executable, "-c", READ, str(small), str(large), str(limit)]
    return int(subprocess.run(words, capture_output=True, check=True).stdout)
