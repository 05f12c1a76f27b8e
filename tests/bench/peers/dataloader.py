"""What bench_dataplane's call comes nearest to with torch's DataLoader: one worker process that adds one to a tensor of
its own and sends the result.  One way: the batch itself never goes to the worker, only its index.  As many are under way
as are prefetched: one for the latency, eight for the rate.  Usage as in measuring.py, case dataloader."""

import torch
from torch.utils.data import DataLoader, Dataset

import measuring


class Ones(Dataset):
    def __init__(self, size):
        self.x = torch.ones(size // 4)

    def __len__(self):
        return 10**7

    def __getitem__(self, index):
        return self.x + 1


def batches(size, under_way):
    return iter(DataLoader(Ones(size), batch_size=None, num_workers=1, prefetch_factor=under_way))


def main():
    request = measuring.Request()
    torch.set_num_threads(1)
    for metric in list(request.metrics):
        found = batches(request.bytes, measuring.WINDOW if metric == "throughput" else 1)

        def receive(under_way):
            out = next(found)  # noqa: B023
            assert out[0] == 2 and out[-1] == 2
            under_way.pop()

        request.metrics = [metric]
        measuring.measure(request, lambda: None, receive)
        del found


main()
