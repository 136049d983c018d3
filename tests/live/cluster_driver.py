# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run by test_cluster.py in a process of its own: jobs on a Dask cluster, of whose workers one is killed midway."""

from __future__ import annotations

import json
import os
import signal
import sys

from cluster_dask import Copies, results
from distributed import Client, LocalCluster


def main(lxcpath: str, count: int) -> None:
    """Print the results, and the process ids of the workers before and after one of them was killed."""
    found = []
    cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.register_plugin(Copies("base", 2, lxcpath))
        before = client.run(os.getpid)
        for number, text in results(client, count):
            found.append((number, text))
            if len(found) == count // 4:
                os.kill(next(iter(before.values())), signal.SIGKILL)
        client.wait_for_workers(2)
        after = client.run(os.getpid)
        client.unregister_worker_plugin(Copies.name)
    print(json.dumps([found, sorted(before.values()), sorted(after.values())]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
