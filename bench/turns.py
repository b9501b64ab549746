"""One turn of one contestant, in some tens of milliseconds: open, warm up, measure, close.

Throughput, `drain` and `flow`: time and CPU time of this process per notification, of each burst. The sender is
another process and the server has its own, so the CPU time is the receiver's alone.

- `drain`: a burst is sent and committed, and all of its bytes have arrived in the receiver's socket before
  the clock starts, which runs from asking for the first to holding the last. Nobody else works meanwhile. The
  receive buffer is enlarged so that a burst fits. It costs the receiver's work, and nothing else.
- `flow`: the clock starts when the sender is told to send several bursts in a row. The server's work is part
  of it, and the receiver reads in smaller pieces, as they come.

Latency, `echo` and `wake`: of one notification at a time.

- `echo`: from before notifying to after receiving, on one connection.
- `wake`: from just before the other process executes NOTIFY to the receiver holding the event, which was
  blocked: the next one is asked for after the last was received, and sent after a pause.
"""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import monotonic, monotonic_ns, process_time_ns, sleep
from typing import NamedTuple

from bench.contestants import Arrival, Echo, Receiver
from bench.ground import CHANNEL, Ground
from bench.sender import PAYLOAD_SIZE, Bursts, Stamp, payload

__all__ = ["Cost", "drain", "echo", "flow", "wake"]

RECEIVE_BUFFER = 1 << 20
FRAME = 1 + 4 + 4 + len(CHANNEL) + 1 + 1
"""Bytes of a NotificationResponse but for its payload: type, length, pid, channel, two zero bytes."""


class Cost(NamedTuple):
    """What one notification cost, in nanoseconds."""

    wall: float
    cpu: float


def drain(make: Callable[[], Receiver], ground: Ground, length: int = PAYLOAD_SIZE) -> list[Cost]:
    """Throughput of bursts that wait at the receiver."""
    burst = ground.effort.burst
    costs = []
    with _receiving(make, ground, length) as receiver:
        for _ in range(ground.effort.drained_bursts):
            ground.sender.run(_bursts(receiver, ground, length))
            _await_bytes(receiver.fileno(), burst * (FRAME + length))
            cpu_before, start = process_time_ns(), monotonic_ns()
            last = receiver.receive(burst)
            cpu = process_time_ns() - cpu_before
            _check(receiver, last, ground, length)
            costs.append(Cost((last.at - start) / burst, cpu / burst))
    return costs


def flow(make: Callable[[], Receiver], ground: Ground, length: int = PAYLOAD_SIZE) -> list[Cost]:
    """Throughput of bursts on their way."""
    burst, times = ground.effort.burst, ground.effort.flowing_bursts
    with _receiving(make, ground, length) as receiver:
        cpu_before, start = process_time_ns(), monotonic_ns()
        ground.sender.begin(_bursts(receiver, ground, length, times))
        last = receiver.receive(burst * times)
        cpu = process_time_ns() - cpu_before
        ground.sender.finish()
        _check(receiver, last, ground, length)
    return [Cost((last.at - start) / (burst * times), cpu / (burst * times))]


def wake(make: Callable[[], Receiver], ground: Ground) -> list[int]:
    """Latency from another process to a blocked receiver, in nanoseconds."""
    samples = []
    with _receiving(make, ground, PAYLOAD_SIZE) as receiver:
        for _ in range(ground.effort.warm_up_samples + ground.effort.samples):
            ground.sender.begin(Stamp(CHANNEL))
            arrival = receiver.receive(1)
            ground.sender.finish()
            samples.append(arrival.at - int(arrival.payload))
    return samples[ground.effort.warm_up_samples :]


def echo(make: Callable[[], Echo], ground: Ground) -> list[int]:
    """Latency on one connection, in nanoseconds."""
    samples = []
    contestant = make()
    gc.collect()
    contestant.open(ground.dsn, CHANNEL)
    with closing(contestant):
        for number in range(ground.effort.warm_up_samples + ground.effort.samples):
            sent = payload(number)
            start = monotonic_ns()
            received = contestant.echo(sent)
            samples.append(monotonic_ns() - start)
            assert received == sent, (contestant, received)
    return samples[ground.effort.warm_up_samples :]


@contextmanager
def _receiving(make: Callable[[], Receiver], ground: Ground, length: int) -> Iterator[Receiver]:
    """A receiver that has received one burst already."""
    receiver = make()
    gc.collect()  # what others left behind
    receiver.open(ground.dsn, CHANNEL)
    with closing(receiver):
        with socket.socket(fileno=os.dup(receiver.fileno())) as same_socket:
            same_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        ground.sender.run(_bursts(receiver, ground, length))
        _check(receiver, receiver.receive(ground.effort.burst), ground, length)
        yield receiver


def _await_bytes(fd: int, expected: int) -> None:
    deadline = monotonic() + 5
    while (waiting := struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]) < expected:
        if monotonic() > deadline:
            raise TimeoutError(f"{waiting} of {expected} bytes have arrived: the receive buffer is too small")
        sleep(0.0002)


def _bursts(receiver: Receiver, ground: Ground, length: int, times: int = 1) -> Bursts:
    return Bursts(CHANNEL, ground.effort.burst, times, length, _quotes(receiver))


def _quotes(receiver: Receiver) -> bool:
    return getattr(receiver, "quotes", False)


def _check(receiver: Receiver, last: Arrival, ground: Ground, length: int) -> None:
    """That it is the last of a burst, so none is missing; and whole, so nobody saves work."""
    assert last.pid in (None, ground.sender.pid), last
    expected = payload(ground.effort.burst, length - 2 if _quotes(receiver) else length)
    assert last[1:3] == (CHANNEL, expected), last
