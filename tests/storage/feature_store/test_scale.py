from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from storage.feature_store import create_features

OPEN = r"""
import json, re, sys
from pathlib import Path
import numpy as np
from storage.feature_store import open_features

reader = open_features(sys.argv[1])
indices = np.random.default_rng(0).integers(0, 10**6, 128)
found = reader.rows(indices)[:, 0]
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([peak, bool((found == indices % 251).all())]))
"""


def test_a_million_rows_open_within_little_memory(tmp_path: Path):
    rows = np.broadcast_to((np.arange(10**6) % 251).astype(np.uint8)[:, None], (10**6, 4))
    with create_features(tmp_path / "store", 10**6, (4,), np.uint8, flush=False) as writer:
        writer.write(0, rows)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    peak_bytes, right = json.loads(done.stdout)
    assert right
    assert peak_bytes < 200e6
