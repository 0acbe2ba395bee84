"""Absurd messages to the handlers of a running edge and of a running live run.

Every one is answered in time, the edge stays SERVING, its memory stays bounded, and a good request beside them has the
right answer. ``make fuzz`` runs both for longer than the tests.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.faults.chaos import CARD
from benchmarks.faults.mutations import mutated
from benchmarks.load import resources
from splitinfer.graph import SplitModel
from splitinfer.policies import named_policy
from splitinfer.profiling import profile
from splitinfer.runtime import EdgeProcess
from splitinfer.runtime.loading import capture_card
from splitinfer.runtime.loop import LoopSettings, run_edge
from splitinfer.runtime.loop.attendance import ATTEND, Attendance
from splitinfer.runtime.loop.record import LiveRecord
from splitinfer.runtime.transport import DESCRIBE, INFER, INFER_STREAM, SERVICE
from splitinfer.simulation import Scenario
from splitinfer.simulation.identity import digest
from splitinfer.wire import LongMessage, Request, Wire, decode_reply, encode_request, is_piece
from splitinfer.wire import splitinfer_pb2 as pb
from splitinfer.wire.torch_tensors import to_torch

DEADLINE_S = 20.0
"""In which every absurd message is answered; most take a millisecond."""
MOST_GROWTH_KIB = 200_000
ANSWERS = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""What may be said to an absurd message; anything else is a bug of the server."""
_CUT = 1
_WORDS = ("", "small", "x" * 5000, "\0", "../../etc/passwd", "%s%n", "\N{SNOWMAN}" * 9)
_NUMBERS = (0, 1, 2, 3, 7, 255, 1 << 16, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_FLOATS = (0.0, -1.0, 1.0, 1e300, -1e300, float("nan"), float("inf"), 5e-324)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, (1 << 31) - 1),
}


def absurd(draw: random.Random, kind: type[Message]) -> Any:
    """Return a well-formed message whose fields make no sense, or some sense by chance."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw.random() < 0.3:
            continue
        count = draw.choice((0, 1, 2, 3, 50)) if field.is_repeated else 1
        values = [_value(draw, field) for _ in range(count)]
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])
    return message


def _value(draw: random.Random, field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return absurd(draw, field.message_type._concrete_class)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        word = draw.choice(_WORDS)
        return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return draw.choice(_FLOATS)
    least, most = _BITS[field.cpp_type]
    return max(least, min(most, draw.choice(_NUMBERS) * draw.choice((1, 1, -1))))


class Victim:
    """A running edge, and what strangers say to it. A context manager.

    Args:
        edge: in a process of its own.
        split: a model that it holds.
        image: what the model takes.
    """

    def __init__(self, edge: EdgeProcess, split: SplitModel, image: torch.Tensor) -> None:
        self._pid = edge.pid
        self._channel = grpc.insecure_channel(edge.address)
        self._good = request_of(split, image, 77)
        self._answer = split(image)
        self.check_well()
        self._before_kib = resources(self._pid)["resident_kib"]

    def __enter__(self) -> Victim:
        return self

    def __exit__(self, *raised: object) -> None:
        self._channel.close()

    def throw(self, draw: random.Random) -> None:
        """Say something to each method and demand an answer in time.

        Raises:
            AssertionError: there was none, or one that is a bug.
        """
        self._expect(DESCRIBE, self._changed(draw, absurd(draw, pb.DescribeRequest).SerializeToString()))
        self._expect(INFER, self._request(draw))
        said = [self._request(draw) for _ in range(4)]
        if draw.random() < 0.5:
            said[2:2] = self._pieces(draw)
        call = self._channel.stream_stream(INFER_STREAM)(iter(said), timeout=DEADLINE_S)
        replies = []
        try:
            replies += [decode_reply(data, Wire()) for data in call]
            assert len(replies) == len(said) or any(map(is_piece, said))
        except grpc.RpcError as error:  # what makes no message in pieces ends its stream
            assert any(map(is_piece, said)) and error.code() in ANSWERS, error  # noqa: PT017, PT018 - either is right
        codes = {grpc.StatusCode.OK if reply.refusal is None else _status(reply.refusal[0]) for reply in replies}
        assert codes <= ANSWERS, codes

    def check_well(self) -> None:
        """Demand that the edge is SERVING and answers rightly.

        Raises:
            AssertionError: it does not.
        """
        health = health_pb2_grpc.HealthStub(self._channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=DEADLINE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reply = decode_reply(self._channel.unary_unary(INFER)(self._good, timeout=DEADLINE_S), Wire())
        assert reply.request_id == 77
        assert torch.equal(to_torch(reply.tensors[0]), self._answer)

    @property
    def growth_kib(self) -> int:
        """Memory that the edge has taken since it started to answer."""
        return resources(self._pid)["resident_kib"] - self._before_kib

    def _request(self, draw: random.Random) -> bytes:
        message = absurd(draw, pb.InferRequest)
        good = pb.InferRequest.FromString(self._good)
        for name in ("protocol_version", "model", "fingerprint", "cut"):  # so that some come further than these
            if draw.random() < 0.8:
                setattr(message.header, name, getattr(good.header, name))
        if draw.random() < 0.5:
            del message.header.tensors[1:]
            message.header.tensors.insert(0, good.header.tensors[0])
            message.payload = good.payload
        return self._changed(draw, message.SerializeToString() if draw.random() < 0.7 else self._good)

    def _pieces(self, draw: random.Random) -> list[bytes]:
        """Return a request in pieces, most of the time with a mistake."""
        whole = self._request(draw)
        size = draw.choice((1, 7, 1000)) if len(whole) < 1000 else draw.randrange(len(whole) // 20, len(whole))
        pieces = list(LongMessage((whole,), len(whole), size).pieces())
        at = draw.randrange(len(pieces) + 1)
        if draw.random() < 0.3:
            del pieces[at : at + 1]
        if draw.random() < 0.3:
            pieces[at:at] = [mutated(draw, draw.choice((*pieces, whole)))]
        return pieces

    def _changed(self, draw: random.Random, data: bytes) -> bytes:
        return mutated(draw, data) if draw.random() < 0.5 else data

    def _expect(self, method: str, data: bytes) -> None:
        try:
            self._channel.unary_unary(method)(data, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            assert error.code() in ANSWERS, error  # noqa: PT017 - both an answer and a refusal are right


def request_of(split: SplitModel, image: torch.Tensor, number: int) -> bytes:
    """Return the bytes of a request that the edge answers."""
    tensors = split.run_head(_CUT, image)
    return encode_request(Request(split.name, split.fingerprint, _CUT, tensors, number), Wire())


def _status(number: int) -> grpc.StatusCode | None:
    return next((code for code in grpc.StatusCode if code.value[0] == number), None)


class AttackedRun:
    """A live run with one device that keeps its word, and a place for strangers who do not.

    Args:
        folder: for a card.
        slots: length of the run.

    Attributes:
        attacks: strangers that had the other device's place, or were refused it.
        right: answers that the good device got, of ``asked``.
        asked: its tasks.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        (folder / "small.toml").write_text(CARD)
        self._split = capture_card(folder / "small.toml")
        self._world = Scenario(
            name="small",
            services=(profile(folder / "small.toml"),),
            num_devices=2,
            arrival_rate_hz=1.0,
            slots_per_period=5,
            bandwidth_hz=2e5,
        )
        self._slots = slots
        self._image = torch.ones(1, 3, 16, 16)
        self._answer = self._split(self._image)
        self.attacks = self.right = self.asked = 0
        self.record = LiveRecord()

    def run(self, draw: random.Random, policy: str = "myopic") -> None:
        """Run it, with strangers one after the other.

        Raises:
            Exception: what ended the edge, which nothing may.
        """
        settings = LoopSettings(slots=self._slots, time_scale=0.1, lease_s=DEADLINE_S)
        listens: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def be_edge() -> None:
            try:
                chosen = named_policy(policy, self._world)
                run_edge(self._world, chosen, [self._split], settings, on_listen=listens.put, observer=self.record.add)
                ended.put(None)
            except BaseException as error:  # noqa: BLE001 - raised again below
                ended.put(error)
                listens.put(error)

        edge = threading.Thread(target=be_edge, name="the edge")
        edge.start()
        address = listens.get(timeout=120)
        if isinstance(address, BaseException):
            raise address
        good = threading.Thread(target=self._be_good, args=(address,), name="the good device")
        good.start()
        while edge.is_alive():
            with contextlib.suppress(grpc.RpcError):
                self._attack(address, draw)
            self.attacks += 1
        good.join()
        error = ended.get()
        if error is not None:
            raise error

    def _hello(self, device: int) -> pb.Hello:
        prints = [self._split.fingerprint]
        return pb.Hello(protocol_version=1, device=device, scenario=digest(self._world), fingerprints=prints)

    def _be_good(self, address: str) -> None:
        def look(result: pb.Result) -> None:
            reply = decode_reply(result.reply, Wire())
            self.right += reply.refusal is None and torch.equal(to_torch(reply.tensors[0]), self._answer)

        attendance = Attendance(address, look)
        attendance.join(self._hello(0), connect_s=60, join_s=60)
        period = self._world.slots_per_period
        arrived = 0
        for slot in range(self._slots + 1):
            message = pb.Slot(slot=slot, arrived=[arrived])
            arrived = 0
            if slot % 10 == 0 and slot < self._slots - 300:  # the last ones have time to be answered
                self.asked += 1
                arrived = 1
                data = request_of(self._split, self._image, slot)
                whole = {"message_bytes": len(data), "data": data}
                message.pieces.add(task=slot, service=0, cut=_CUT, arrival_slot=slot, **whole)
            if (slot + 1) % period == 0 or slot + 1 == self._slots:
                message.telemetry.CopyFrom(_idle((slot % period) + 1))
            attendance.send(message)
        attendance.wait_finished(600)
        attendance.leave(pb.Farewell(checked=self.right))

    def _attack(self, address: str, draw: random.Random) -> None:
        with grpc.insecure_channel(address) as channel:
            said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            greeting = pb.DeviceMessage(hello=self._hello(1))
            if self.attacks and draw.random() < 0.2:
                greeting = draw.choice((absurd(draw, pb.DeviceMessage), greeting))
                said.put(mutated(draw, greeting.SerializeToString()))
            else:
                said.put(greeting.SerializeToString())
            call = channel.stream_stream(ATTEND)(iter(said.get, None), timeout=3 * DEADLINE_S)
            try:
                start = pb.EdgeMessage.FromString(next(call)).start
                for data in self._slots_of(draw, start.first_slot):
                    said.put(data)
                said.put(None)
                for _ in call:
                    pass
            except StopIteration:
                pass
            finally:
                said.put(None)
                call.cancel()

    def _slots_of(self, draw: random.Random, first: int) -> Iterator[bytes]:
        """Yield what a stranger says in the slots from one on: some nonsense, among what makes sense."""
        period = self._world.slots_per_period
        for slot in range(first, first + draw.randrange(1, 2 * period)):
            message = pb.Slot(slot=slot)
            if (slot + 1) % period == 0:
                message.telemetry.CopyFrom(_idle(period))
            if draw.random() < 0.5:
                name = draw.choice(("pieces", "finished", "arrived", "telemetry"))
                strange = absurd(draw, pb.Slot)
                if name == "telemetry":
                    message.telemetry.MergeFrom(strange.telemetry)
                else:
                    getattr(message, name).extend(getattr(strange, name))
                for piece in message.pieces:  # some come further
                    if draw.random() < 0.7:
                        piece.service, piece.cut, piece.arrival_slot, piece.byte_offset = 0, _CUT, slot, 0
                        piece.data = draw.choice((piece.data, request_of(self._split, self._image, 1)))
                        piece.message_bytes = draw.choice((len(piece.data), piece.message_bytes))
            data = pb.DeviceMessage(slot=message).SerializeToString()
            yield mutated(draw, data) if draw.random() < 0.2 else data


def _idle(slots: int) -> pb.Telemetry:
    return pb.Telemetry(
        slots=slots,
        max_rate_bps=1e6,
        local_queue_cycles=[0.0],
        transmission_queue_bits=[0.0],
        local_frequency_hz=[0.0],
        rate_bps=[0.0],
    )
