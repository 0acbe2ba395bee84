"""Who may attend a run, and what happens when somebody goes away. No model is needed for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from splitinfer.errors import DeadlineError, EdgeUnavailableError, InputError, ModelMismatchError, RemoteError
from splitinfer.runtime.loop.attendance import ATTEND, Attendance
from splitinfer.runtime.loop.edge import EdgeTask, RequestAssembly
from splitinfer.runtime.loop.hub import Hub
from splitinfer.runtime.loop.patience import Patience
from splitinfer.runtime.settings import ServerSettings
from splitinfer.wire import WireLimits
from splitinfer.wire import splitinfer_pb2 as pb

PRINTS = [["a", "b"], ["a"]]
WAIT_S = 20.0


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(PRINTS, "world", ServerSettings(drain_s=0.1)) as hub:
        yield hub


def hello(device: int = 0, **changes: object) -> pb.Hello:
    fields = {"protocol_version": 1, "device": device, "scenario": "world", "fingerprints": PRINTS[device % 2]}
    return pb.Hello(**(fields | changes))


class Guest:
    """A device that joins on a thread of its own, since joining waits for the start."""

    def __init__(self, hub: Hub, greeting: pb.Hello) -> None:
        self.results: list[pb.Result] = []
        self.attendance = Attendance(hub.address, self.results.append)
        self.start: pb.Start | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._join, args=(greeting,))
        self._thread.start()

    def _join(self, greeting: pb.Hello) -> None:
        try:
            self.start = self.attendance.join(greeting, connect_s=WAIT_S, join_s=WAIT_S)
        except RemoteError as error:
            self.error = error

    def joined(self) -> Guest:
        self._thread.join()
        return self


@pytest.mark.parametrize(
    ("greeting", "kind", "reason"),
    [
        (hello(2), RemoteError, "devices 0..1, not 2"),
        (hello(0, scenario="another"), RemoteError, "another scenario"),
        (hello(0, fingerprints=["a", "c"]), ModelMismatchError, "other models or weights"),
        (hello(1, fingerprints=[]), ModelMismatchError, "other models or weights"),
        (hello(0, protocol_version=99), RemoteError, "protocol version"),
    ],
)
def test_a_device_that_does_not_fit_is_told_why(hub: Hub, greeting: pb.Hello, kind: type, reason: str) -> None:
    guest = Guest(hub, greeting).joined()
    guest.attendance.close()
    assert isinstance(guest.error, kind)
    assert reason in str(guest.error)


def test_a_seat_is_taken_once(hub: Hub) -> None:
    first = Guest(hub, hello(0))
    while 0 not in hub._seats:
        pass
    second = Guest(hub, hello(0)).joined()
    assert "device 0 is there already" in str(second.error)
    hub.send(0, pb.EdgeMessage(start=pb.Start(slots=3)))
    assert first.joined().start == pb.Start(slots=3)
    for guest in (first, second):
        guest.attendance.close()


def test_who_dies_while_others_are_awaited_gives_up_its_seat(hub: Hub) -> None:
    dead = Guest(hub, hello(0))
    while not hub.is_seated(0):
        threading.Event().wait(0.01)
    dead.attendance.close()
    while hub.is_seated(0):
        threading.Event().wait(0.01)
    guests = [Guest(hub, hello(0)), Guest(hub, hello(1))]
    hub.wait_for_all(WAIT_S)
    hub.send(0, pb.EdgeMessage(start=pb.Start(slots=3)))
    assert guests[0].joined().start == pb.Start(slots=3)
    for guest in guests:
        guest.attendance.close()


@pytest.mark.parametrize(
    "word", [pb.DeviceMessage(hello=hello(1)), pb.DeviceMessage()], ids=["hello again, as another", "nothing"]
)
def test_who_says_what_nobody_asked_is_sent_away_at_once(hub: Hub, word: pb.DeviceMessage) -> None:
    said = [pb.DeviceMessage(hello=hello(0)).SerializeToString()] + 1000 * [word.SerializeToString()]
    with grpc.insecure_channel(hub.address) as channel, pytest.raises(grpc.RpcError) as refused:
        next(channel.stream_stream(ATTEND)(iter(said)))
    assert "neither a slot nor a farewell" in refused.value.details()
    assert not hub.is_seated(1)


def test_a_farewell_is_the_last_word(hub: Hub) -> None:
    guest = Guest(hub, hello(0))
    while not hub.keep(0):
        threading.Event().wait(0.01)
    hub.send(0, pb.EdgeMessage(start=pb.Start(slots=3)))
    attendance = guest.joined().attendance
    attendance.send(pb.Slot(slot=0))
    attendance.leave(pb.Farewell(checked=1))
    assert hub.slot(0, 0, WAIT_S).slot == 0
    with pytest.raises(RemoteError, match="device 0 went away in slot 1"):
        hub.slot(0, 1, WAIT_S)
    assert hub.farewell(0, WAIT_S).checked == 1


def test_silent_strangers_keep_no_device_out(hub: Hub) -> None:
    channel = grpc.insecure_channel(hub.address)
    end = threading.Event()

    def nothing() -> Iterator[pb.DeviceMessage]:
        end.wait(60)
        yield from ()

    attend = channel.stream_stream(
        ATTEND,
        request_serializer=pb.DeviceMessage.SerializeToString,
        response_deserializer=pb.EdgeMessage.FromString,
    )
    strangers = [attend(nothing()) for _ in range(3 * ServerSettings().max_guests)]
    guests = [Guest(hub, hello(0)), Guest(hub, hello(1))]
    hub.wait_for_all(WAIT_S)
    for device, guest in enumerate(guests):
        hub.send(device, pb.EdgeMessage(start=pb.Start(slots=3)))
        assert guest.joined().start == pb.Start(slots=3)
        guest.attendance.close()
    for stranger in strangers:
        stranger.cancel()
    end.set()
    channel.close()


def test_who_says_nothing_is_sent_away() -> None:
    end = threading.Event()
    with (
        Hub(PRINTS, "world", ServerSettings(drain_s=0.1, hello_s=0.05)) as hub,
        grpc.insecure_channel(hub.address) as channel,
    ):
        call = channel.stream_stream(ATTEND)(iter(lambda: end.wait(60) or b"", b""))
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        assert ended.value.code() is grpc.StatusCode.CANCELLED
        end.set()


def test_unread_messages_wait_at_the_device() -> None:
    limits = WireLimits(max_message_bytes=1 << 20)
    with Hub([["a"]], "world", ServerSettings(drain_s=0.1, limits=limits)) as hub:
        guest = Guest(hub, hello(0, fingerprints=["a"]))
        hub.wait_for_all(WAIT_S)
        hub.send(0, pb.EdgeMessage(start=pb.Start(slots=99)))
        piece = pb.TaskPiece(data=bytes(500 << 10))
        for slot in range(64):
            guest.joined().attendance.send(pb.Slot(slot=slot, pieces=[piece]))
        assert [hub.slot(0, slot, WAIT_S).slot for slot in range(64)] == list(range(64))
        # What the hub keeps unread is bounded: a message over the limit, and the one that came before.
        for slot in range(64, 99):
            guest.attendance.send(pb.Slot(slot=slot, pieces=[piece]))
        threading.Event().wait(0.3)  # for those that would come if nothing held them back
        assert sum(message.ByteSize() for message, _ in hub._seats[0].slots) <= 2 << 20
        guest.attendance.close()


def test_devices_come_over_ipv6() -> None:
    with Hub([["a"]], "world", ServerSettings(host="::1", drain_s=0.1)) as hub:
        assert hub.address.startswith("[::1]:")
        guest = Guest(hub, hello(0, fingerprints=["a"]))
        hub.wait_for_all(WAIT_S)
        hub.send(0, pb.EdgeMessage(start=pb.Start(slots=3)))
        assert guest.joined().start == pb.Start(slots=3)
        guest.attendance.close()


def test_messages_go_both_ways_in_order_and_a_lost_device_is_named(hub: Hub) -> None:
    guests = [Guest(hub, hello(0)), Guest(hub, hello(1))]
    hub.wait_for_all(WAIT_S)
    for device in range(2):
        hub.send(device, pb.EdgeMessage(start=pb.Start(slots=3, cuts=[device])))
    assert [guest.joined().start.cuts[0] for guest in guests] == [0, 1]
    attendance = guests[1].attendance
    attendance.send(pb.Slot(slot=0))
    attendance.send(pb.Slot(slot=1))
    assert [hub.slot(1, slot, WAIT_S).slot for slot in range(2)] == [0, 1]
    hub.send(1, pb.EdgeMessage(result=pb.Result(task=7, reply=b"answer")))
    hub.send(1, pb.EdgeMessage(cuts=pb.Cuts(from_slot=5, cuts=[3])))
    assert attendance.cuts_from(5, WAIT_S) == [3]
    assert [result.task for result in guests[1].results] == [7]
    assert attendance.cuts_from(10, 0.0) is None
    with pytest.raises(DeadlineError, match="device 0 said nothing of slot 0"):
        hub.slot(0, 0, 0.01)
    attendance.close()
    with pytest.raises(RemoteError, match="device 1 went away in slot 2"):
        hub.slot(1, 2, WAIT_S)
    guests[0].attendance.close()


def test_devices_learn_that_the_edge_failed() -> None:
    # The hub has to be left through the error.
    with (  # noqa: PT012
        pytest.raises(InputError, match="a mistake"),
        Hub([["a"]], "world", ServerSettings(drain_s=0.1)) as hub,
    ):
        guest = Guest(hub, hello(0, fingerprints=["a"]))
        hub.wait_for_all(WAIT_S)
        hub.send(0, pb.EdgeMessage(start=pb.Start(slots=3)))
        guest.joined()
        raise InputError("a mistake at the edge")
    with pytest.raises(RemoteError, match=r"a mistake at the edge|ended the run|connection was lost"):
        guest.attendance.wait_finished(WAIT_S)
    guest.attendance.close()


def test_nobody_listens() -> None:
    attendance = Attendance("127.0.0.1:9", lambda result: None)
    with pytest.raises(EdgeUnavailableError, match="no edge server answers"):
        attendance.join(hello(0), connect_s=0.05, join_s=0.05)
    attendance.close()


TASK = EdgeTask(device=0, service=0, number=1, cut=0, arrival_slot=0)


def test_pieces_make_the_request_again() -> None:
    assembly = RequestAssembly(max_message_bytes=10, max_pending_bytes=10)
    for _ in range(3):  # released bytes can be used again
        assert assembly.add(TASK, 0, 10, b"01234") is None
        assert assembly.add(TASK, 5, 10, b"56789") == b"0123456789"
        assembly.release(TASK)


@pytest.mark.parametrize(
    ("offset", "message_bytes", "data", "reason"),
    [
        (1, 8, b"x", r"follow byte 0 of 8"),
        (0, 8, b"123456789", r"follow byte 0 of 8"),
        (0, 8, b"", r"follow byte 0 of 8"),
        (0, 11, b"x", "max_message_bytes is 10"),
        (0, 0, b"", "max_message_bytes is 10"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(offset: int, message_bytes: int, data: bytes, reason: str) -> None:
    assembly = RequestAssembly(max_message_bytes=10, max_pending_bytes=100)
    with pytest.raises(InputError, match=reason):
        assembly.add(TASK, offset, message_bytes, data)


def test_waiting_requests_have_a_limit() -> None:
    assembly = RequestAssembly(max_message_bytes=10, max_pending_bytes=15)
    assembly.add(TASK, 0, 10, b"0123456789")
    assert assembly.fullest() is None
    assembly.add(EdgeTask(1, 0, 2, 0, 0), 0, 10, b"012345")
    assert assembly.fullest() == 0
    assembly.drop(0)
    assert assembly.fullest() is None


def test_who_sends_just_before_its_lease_ends_holds_nobody_up_for_long() -> None:
    patience = Patience(lease_s=10.0)
    now_s, lost = 0.0, None
    for slot in range(100):
        late_s = 9.9 if slot < 50 else 0.0
        lost = patience.lost_with({0: now_s, 1: now_s + late_s, 2: now_s + 0.1}, due_s=now_s)
        if lost is not None:
            break
        now_s += late_s + 0.1
    assert lost == 1
    assert now_s < 40


def test_devices_that_are_slow_together_or_less_than_half_of_the_time_are_all_kept() -> None:
    together, one = Patience(lease_s=1.0), Patience(lease_s=1.0)
    for slot in range(1000):
        assert together.lost_with({0: slot + 0.9, 1: slot + 0.9}, due_s=slot) is None
        assert one.lost_with({0: slot, 1: slot + 0.4}, due_s=slot) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x12\x80\x80\x80\x08" + b"\x12\x00" * (8 << 20), "max_fields"),  # pieces of requests, all empty
        (b"\x0a\x80\x80\x80\x08" + b"\x22\x00" * (8 << 20), "max_header_bytes"),  # fingerprints
        (b"\x12\x00" * 2, "max_fields"),
        (b"\x0a\x02\x08", "malformed"),
        (b"\xff", "malformed"),
        (b"", "says hello first"),
        (pb.DeviceMessage(slot=pb.Slot()).SerializeToString(), "says hello first"),
    ],
    ids=["pieces", "fingerprints", "two in one", "cut off", "noise", "nothing", "no hello"],
)
def test_what_is_no_hello_is_refused_before_it_is_read(hub: Hub, data: bytes, said: str) -> None:
    with grpc.insecure_channel(hub.address) as channel, pytest.raises(grpc.RpcError) as refused:
        next(channel.stream_stream(ATTEND)(iter([data])))
    assert said in refused.value.details()
    assert refused.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_a_device_that_reads_nothing_is_found_out() -> None:
    with (
        Hub(PRINTS, "world", ServerSettings(drain_s=0.1, max_unread_bytes=8 << 20)) as hub,
        grpc.insecure_channel(hub.address) as channel,
    ):
        end = threading.Event()
        said = [pb.DeviceMessage(hello=hello(0)).SerializeToString()]
        call = channel.stream_stream(ATTEND)(iter(lambda: said.pop() if said else end.wait(60) or b"", b"nothing"))
        while not hub.is_seated(0):
            threading.Event().wait(0.01)
        answer = pb.EdgeMessage(result=pb.Result(reply=bytes(1 << 20)))

        def answer_all() -> None:
            for _ in range(100):
                hub.send(0, answer)

        with pytest.raises(RemoteError, match=r"device 0 leaves \d+ bytes unread"):
            answer_all()
        end.set()
        call.cancel()
