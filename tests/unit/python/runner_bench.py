"""A plugin behind a Runner, without a host."""

import msgpack

from bulkhead import loader, messages
from bulkhead.context import Facts
from bulkhead.rng import GlobalSeeds
from bulkhead.runner import Runner

FACTS = Facts(generation=4, rank=1, world_size=2, is_distributed=True, is_main=False, run_dir="/r", run_seed=7,
              plugin="plug", project="p", scope="rank")  # fmt: skip


class Bench:
    """A plugin behind a Runner; sent messages are kept as a worker would see them."""

    def __init__(self, cls, seeded=True, **given):
        config = {"with": given}
        self.loaded = loader.construct(cls, config, "rank")
        self.sent = []
        self.answers = {}  # number of the question → its answer
        seeds = GlobalSeeds() if seeded else None
        self.runner = Runner(self.loaded, FACTS, seeds, self._send, lambda seq, number: self.answers[number])

    def _send(self, envelope, payloads):
        frames = messages.frames_of(envelope, payloads)
        self.sent.append((msgpack.unpackb(frames[0]), [bytes(frame) for frame in frames[1:]]))

    def call(self, hook, batch=(), state=b"", seed_rank=1, **context):
        call = {"generation": 9, "seq": 5, "hook": hook, "deadline_ms": 0, "seed_rank": seed_rank,
                "context": {**messages.default_context(), **context}, "batch": batch, "state": state}  # fmt: skip
        self.runner.run(call)
        reply, payloads = self.sent[-1]
        assert (reply["type"], reply["generation"], reply["seq"], reply["hook"]) == ("reply", 4, 5, hook)
        return reply, payloads
