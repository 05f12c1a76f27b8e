"""The Python end of bench_doorbell: sends back what comes, until the other end has gone."""

import select
import sys

from bulkhead import ring


def main() -> None:
    end = ring.connect(sys.argv[1])
    poll = select.poll()
    for descriptor in end.descriptors():
        poll.register(descriptor, select.POLLIN)
    try:
        while True:
            message = end.receive()
            if message is None:
                poll.poll()
            else:
                end.send(message[0])
    except ring.PeerGone:
        pass


main()
