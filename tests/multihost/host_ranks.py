"""The ranks of one host in test_data_parallel.py; what the host sends in each case goes to a file beside the case's own.

    python -m tests.multihost.host_ranks CASES.json      the cases of tests/methods/pipeline_ranks.py, one after another
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.forked_ranks import fork, wait_for_all
from tests.methods.pipeline_ranks import train


def sent_bytes() -> int:
    """What this host's eth0 has sent so far, headers included."""
    rows = Path("/proc/self/net/dev").read_text().splitlines()
    fields = next(row for row in rows if row.strip().startswith("eth0:")).partition(":")[2].split()
    return int(fields[8])


def main() -> None:
    os.environ.update(DS_ACCELERATOR="cpu", DS_LOG_LEVEL="warning", OMP_NUM_THREADS="1")
    import hpcvideo.methods.pipeline.method  # noqa: F401  (imported once, not in every case)

    first_port = int(os.environ["MASTER_PORT"])
    for number, case in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        before = sent_bytes()
        port = {"MASTER_PORT": str(first_port + number)}
        if wait_for_all([fork(lambda case=case: train(case), port)]) != [0]:
            raise SystemExit(f"{case['out']} failed")
        Path(f"{case['out']}.sent.{os.environ['RANK']}").write_text(str(sent_bytes() - before))


if __name__ == "__main__":
    main()
