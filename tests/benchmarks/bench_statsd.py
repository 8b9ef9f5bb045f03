"""What a statsd line costs: ``python tests/benchmarks/bench_statsd.py [events per second]``.

Prints the time of `send` on the caller's thread, the CPU time of the sending thread for each line, and whether
that many events a second arrive (UDP on the loopback interface, a second process reads).
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from multiprocessing.connection import Connection

from c2c_otel_exporters.statsd import Sender, timer_value

LINE = "shop.route.GET.hello.200:", "|ms|#env:production"
SECONDS = 3


def read(pipe: Connection) -> None:
    """Count lines until one says stop."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        server.bind(("127.0.0.1", 0))
        pipe.send(server.getsockname()[1])
        lines = packets = 0
        while True:
            packet = server.recv(2000)
            if packet == b"stop":
                break
            packets += 1
            lines += packet.count(b"\n") + 1
        pipe.send((lines, packets))


def main(rate: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=read, args=(theirs,))
    reader.start()
    sender = Sender("127.0.0.1", ours.recv())
    head, tail = LINE
    sender.send("warm:1|c")
    sender.flush()

    spent = 0.0
    sent = 1
    cpu, started = time.process_time(), time.perf_counter()
    own = time.thread_time()
    for tick in range(SECONDS * 100):
        begun = time.perf_counter()
        for n in range(rate // 100):
            sender.send(head + timer_value(n / 1e5) + tail)
        spent += time.perf_counter() - begun
        sent += rate // 100
        time.sleep(max(0.0, started + (tick + 1) / 100 - time.perf_counter()))
    took = time.perf_counter() - started
    own = time.thread_time() - own
    sender.flush(5)
    other = time.process_time() - cpu - own
    sender.close(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"stop", ("127.0.0.1", sender._address[1]))
    lines, packets = ours.recv()
    reader.join()

    print(f"{sent / took:,.0f} events/s offered, {lines:,} of {sent:,} arrived in {packets:,} packets")
    print(f"caller: {own / sent * 1e6:.2f} us CPU an event (with its loop and timer_value)")
    print(f"thread: {other / sent * 1e6:.2f} us CPU an event; together {(own + other) / took * 100:.0f} % of a core")
    count = 100_000
    loop = time.thread_time()
    for _ in range(count):
        pass
    loop = time.thread_time() - loop
    quiet = Sender("127.0.0.1", 9, max_queue=1 << 30)
    quiet._waiting = False  # no thread takes them: the time of the call alone
    begun = time.thread_time()
    for _ in range(count):
        quiet.send("shop.route.GET.hello.200:1|ms")
    print(f"send alone: {(time.thread_time() - begun - loop) / count * 1e6:.2f} us")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
