"""The call of bench_dataplane made with a Ray actor: a numpy array there, a new one back, since what an actor gets is
read-only.  Without a dashboard and usage reports.  Usage as in measuring.py, case ray."""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np  # noqa: E402
import ray  # noqa: E402

import measuring  # noqa: E402


@ray.remote
class Peer:
    def add_one(self, x):
        return x + 1


def main():
    request = measuring.Request()
    ray.init(
        num_cpus=2,
        object_store_memory=3 << 30,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    peer = Peer.remote()
    x = np.ones(request.bytes // 4, "f4")

    def receive(under_way):
        (ended,), under_way[:] = ray.wait(under_way, num_returns=1)
        out = ray.get(ended)
        assert out[0] == 2 and out[-1] == 2 and out.nbytes == request.bytes

    measuring.measure(request, lambda: peer.add_one.remote(x), receive)
    ray.shutdown()


main()
