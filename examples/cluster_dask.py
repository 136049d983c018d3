# SPDX-License-Identifier: LGPL-2.1-or-later
"""Jobs, each in a throwaway container of its own, spread over the machines of a Dask cluster.

python cluster_dask.py --jobs 200                         # on a cluster of two processes on this machine
python cluster_dask.py --scheduler tcp://10.0.0.1:8786    # on one that is there, with lxccopy_ffi on each machine

docs/cluster.md tells about it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from distributed import Client, LocalCluster, Worker, WorkerPlugin, as_completed, get_worker

from lxccopy_ffi import Pool, reap


class Copies(WorkerPlugin):
    """Gives each worker a pool of copies, as long as it lives.

    Args:
        base: The name of the base, which is on every machine.
        size: How many copies each worker has.
        lxcpath: Where the base is; LXC's default where None.
    """

    name = "lxc-copies"
    pool: Pool

    def __init__(self, base: str, size: int, lxcpath: str | None = None) -> None:
        self._arguments = base, size, lxcpath

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - Dask's
        """Remove what a worker has left that was killed while it made a copy, and start ours."""
        base, size, lxcpath = self._arguments
        reap(lxcpath)
        self.pool = Pool(base, size, lxcpath=lxcpath)

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Remove the copies."""
        self.pool.shutdown()


def job(number: int) -> tuple[int, str]:
    """One job, on some worker: a command in a copy that nobody has used before."""
    copies: Any = get_worker().plugins[Copies.name]
    script = 'test ! -e /used && touch /used && sleep 0.05 && echo "$1: $(hostname)"'
    result = copies.pool.run(["sh", "-c", script, "sh", str(number)], capture_output=True, text=True, check=True)
    return number, result.stdout


def results(client: Client, count: int) -> Iterator[tuple[int, str]]:
    """Yield the result of each job, once, as they come. Jobs of a worker that dies run again on another one."""
    futures = client.map(job, range(count), pure=False)
    for _, result in as_completed(futures, with_results=True):
        yield result


def connect(options: argparse.Namespace) -> Client:
    """A client of the cluster that was named, or of one of this machine's."""
    if options.scheduler:
        return Client(options.scheduler)
    cluster = LocalCluster(n_workers=2, threads_per_worker=options.size, dashboard_address=None)
    return Client(cluster)


def main(arguments: list[str] | None = None) -> None:
    """Run the jobs, and say which worker's copies were used how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base")
    parser.add_argument("--lxcpath")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--size", type=int, default=2, help="copies, and threads, of each worker")
    parser.add_argument("--scheduler")
    options: Any = parser.parse_args(arguments)
    with connect(options) as client:
        client.register_plugin(Copies(options.base, options.size, options.lxcpath))
        counted = Counter(number for number, _ in results(client, options.jobs))
        client.unregister_worker_plugin(Copies.name)
        if client.cluster is not None:
            client.cluster.close()
    print(f"{len(counted)} jobs done, each once" if set(counted.values()) == {1} else counted)


if __name__ == "__main__":
    main()
