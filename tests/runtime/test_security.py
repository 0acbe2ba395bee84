"""Who may connect: TLS, mutual TLS, tokens, names; and what strangers, old certificates and other devices get."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from splitinfer.cli.main import main
from splitinfer.errors import EdgeUnavailableError, InputError, RemoteError
from splitinfer.graph import SplitModel
from splitinfer.runtime import ClientSettings, EdgeClient, EdgeServer, ServerSettings
from splitinfer.runtime.certificates import Authority, write_certificates
from splitinfer.runtime.loop.attendance import Attendance
from splitinfer.runtime.loop.hub import Hub
from splitinfer.runtime.security import ClientSecurity, ServerSecurity
from splitinfer.runtime.transport import INFER, open_channel
from splitinfer.runtime.verify import check_answer
from splitinfer.wire import Reply, Request, Wire, decode_reply, encode_request
from splitinfer.wire import splitinfer_pb2 as pb
from tests.runtime import small

IMAGE = torch.ones(1, 3, 32, 32)
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    write_certificates(folder, ["localhost", "127.0.0.1"], devices=2)
    return folder


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITINFER_TOKEN", raising=False)


def serving(folder: Path, *, mutual: bool = False, tokens: Path | None = None, name: str = "server") -> ServerSettings:
    ca = str(folder / "ca.crt") if mutual else None
    tokens_file = str(tokens) if tokens else None
    return ServerSettings(
        security=ServerSecurity(str(folder / f"{name}.crt"), str(folder / f"{name}.key"), ca, tokens_file)
    )


def showing(folder: Path, name: str | None = None, tokens: Path | None = None) -> ClientSettings:
    own = (None, None) if name is None else (str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
    security = ClientSecurity(str(folder / "ca.crt"), *own, str(tokens) if tokens else None)
    return ClientSettings(deadline_s=20, security=security)


def write(folder: Path, name: str, pair: tuple[bytes, bytes]) -> None:
    (folder / f"{name}.crt").write_bytes(pair[0])
    (folder / f"{name}.key").write_bytes(pair[1])


@pytest.mark.parametrize("stream_up_to_bytes", [0, 1 << 20])
def test_every_way_of_asking_works_over_mutual_tls_with_tokens(
    certs: Path, models: dict[str, SplitModel], tmp_path: Path, stream_up_to_bytes: int
) -> None:
    split, tokens = models["plain"], tmp_path / "tokens"
    tokens.write_text(f"# of the fleet\n\ndevice {TOKEN}\n")
    with EdgeServer([split], serving(certs, mutual=True, tokens=tokens)) as server:
        security = showing(certs, "device", tokens).security
        settings = ClientSettings(deadline_s=60, stream_up_to_bytes=stream_up_to_bytes, security=security)
        with EdgeClient(server.address, settings) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "single")
            for result in client.stream(split, 1, [IMAGE] * 3):
                check_answer(result.output, split(IMAGE), "stream")

        async def ask() -> None:
            async with EdgeClient(server.address, settings) as edge:
                check_answer((await edge.infer(split, 1, IMAGE)).output, split(IMAGE), "asyncio")

        asyncio.run(ask())


def test_strangers_to_tls_are_refused(certs: Path, models: dict[str, SplitModel], tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_certificates(other, ["localhost", "127.0.0.1"])
    split = models["plain"]
    with EdgeServer([split], serving(certs, mutual=True)) as server:
        plain, nothing_shown, wrong_ca = ClientSettings(deadline_s=20), showing(certs), showing(other, "device")
        foreign = ClientSettings(
            deadline_s=20,
            security=ClientSecurity(str(certs / "ca.crt"), str(other / "device.crt"), str(other / "device.key")),
        )
        for settings in (plain, nothing_shown, wrong_ca, foreign):
            with EdgeClient(server.address, settings) as client, pytest.raises(EdgeUnavailableError):
                client.infer(split, 1, IMAGE)
        with EdgeClient(server.address, showing(certs, "device")) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "after the strangers")


def test_expired_certificates_and_wrong_host_names_are_refused(
    certs: Path, models: dict[str, SplitModel], tmp_path: Path
) -> None:
    authority, split = Authority.load(certs), models["plain"]
    (tmp_path / "ca.crt").write_bytes((certs / "ca.crt").read_bytes())
    past = datetime.now(UTC) - timedelta(hours=1)
    write(tmp_path, "expired", authority.issue("server", hosts=["127.0.0.1"], days=1, ends=past))
    write(tmp_path, "elsewhere", authority.issue("server", hosts=["edge.example"], days=1))
    write(tmp_path, "old-device", authority.issue("device", days=1, ends=past))
    for name, words in (("expired", "has expired"), ("elsewhere", "for other host names")):
        with (
            EdgeServer([split], serving(tmp_path, name=name)) as server,
            EdgeClient(server.address, showing(certs)) as client,
        ):
            with pytest.raises(EdgeUnavailableError, match=words):
                client.infer(split, 1, IMAGE)
            with pytest.raises(EdgeUnavailableError, match=words):
                client.wait_ready(3600)  # no waiting mends it
    with (
        EdgeServer([split], serving(certs, mutual=True)) as server,
        EdgeClient(server.address, showing(tmp_path, "old-device")) as client,
        pytest.raises(EdgeUnavailableError),
    ):
        client.infer(split, 1, IMAGE)


def test_tokens(
    models: dict[str, SplitModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = models["plain"]
    tokens, wrong = tmp_path / "tokens", tmp_path / "wrong"
    tokens.write_text(f"device-0 {TOKEN}\nsecond-token\n")
    wrong.write_text("guess\n")
    caplog.set_level(logging.DEBUG)
    with EdgeServer([split], ServerSettings(security=ServerSecurity(token_file=str(tokens)))) as server:
        for file in (None, wrong):
            security = ClientSecurity(token_file=str(file) if file else None)
            for up_to in (0, 1 << 20):
                settings = ClientSettings(deadline_s=20, security=security, stream_up_to_bytes=up_to)
                with EdgeClient(server.address, settings) as client, pytest.raises(RemoteError) as refused:
                    client.infer(split, 1, IMAGE)
                assert refused.value.status == "UNAUTHENTICATED"
        with grpc.insecure_channel(server.address) as channel:
            # Whoever watches over an edge needs no token; whoever asks what it serves does.
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            listed = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                next(listed)
        monkeypatch.setenv("SPLITINFER_TOKEN", "second-token")
        with EdgeClient(server.address) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "token of the environment")
        monkeypatch.setenv("SPLITINFER_TOKEN", TOKEN)
        tokens.write_text("device-0 renewed-token\n")
        with EdgeClient(server.address) as client, pytest.raises(RemoteError, match="token"):
            client.infer(split, 1, IMAGE)
        monkeypatch.setenv("SPLITINFER_TOKEN", "renewed-token")
        with EdgeClient(server.address) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "token read again")
    assert TOKEN not in caplog.text
    assert "renewed-token" not in caplog.text


def test_a_token_of_the_environment_guards_a_server_too(
    models: dict[str, SplitModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITINFER_TOKEN", TOKEN)
    with EdgeServer([models["plain"]]) as server:
        with EdgeClient(server.address) as client:
            client.infer(models["plain"], 1, IMAGE)
        monkeypatch.delenv("SPLITINFER_TOKEN")
        with EdgeClient(server.address) as client, pytest.raises(RemoteError, match="token"):
            client.infer(models["plain"], 1, IMAGE)


def test_tokens_never_cross_a_network_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITINFER_TOKEN", TOKEN)
    with EdgeClient("192.0.2.1:50051") as client, pytest.raises(InputError, match="plain text") as refused:
        client.describe()
    assert TOKEN not in str(refused.value)


def test_certificates_are_read_again_when_they_change(models: dict[str, SplitModel], tmp_path: Path) -> None:
    split = models["plain"]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_certificates(folder, ["127.0.0.1"])
    trusts_second = showing(second)
    with EdgeServer([split], serving(first)) as server:
        with EdgeClient(server.address, trusts_second) as client, pytest.raises(EdgeUnavailableError):
            client.infer(split, 1, IMAGE)
        (first / "server.crt").write_text("half a file")  # what cannot be read changes nothing
        with EdgeClient(server.address, showing(first)) as client:
            client.infer(split, 1, IMAGE)
        for kind in ("crt", "key"):
            (first / f"server.{kind}").write_bytes((second / f"server.{kind}").read_bytes())
        with EdgeClient(server.address, trusts_second) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "renewed")


def test_settings_that_do_not_fit_together(certs: Path, tmp_path: Path) -> None:
    crt, key, ca = (str(certs / name) for name in ("server.crt", "server.key", "ca.crt"))
    for wrong, words in (
        (lambda: ServerSecurity(tls_cert=crt), "belong together"),
        (lambda: ServerSecurity(client_ca=ca), "over TLS"),
        (lambda: ServerSecurity(crt, str(certs / "device.key")), "no certificate and its unencrypted key"),
        (lambda: ServerSecurity(crt, str(tmp_path / "absent")), "cannot read .*absent"),
        (lambda: ServerSecurity(crt, key, key), "no PEM file of a CA"),
        (lambda: ClientSecurity(tls_cert=crt, tls_key=key), "tls_ca"),
        (lambda: ClientSecurity(str(tmp_path)), "cannot read"),
        (lambda: ServerSettings(host="0.0.0.0"), "insecure"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
    ServerSettings(host="0.0.0.0", security=ServerSecurity(crt, key))
    secret = tmp_path / "tokens"
    for text in ("", "# nothing\n", "a b c-secret\n", "tök-secret\n"):
        secret.write_text(text)
        with pytest.raises(InputError) as refused:
            ServerSecurity(token_file=str(secret))
        assert "secret" not in str(refused.value).replace(str(secret), "")


def test_certs_command(tmp_path: Path, models: dict[str, SplitModel], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "certs"
    assert main(["certs", "--out", str(out), "--hosts", "localhost,127.0.0.1,::1", "--devices", "1"]) == 0
    assert "ca, server, device, device-0" in capsys.readouterr().out
    assert [oct((out / f"{name}.key").stat().st_mode & 0o777) for name in ("ca", "server", "device")] == ["0o600"] * 3
    authority = (out / "ca.crt").read_bytes()
    with EdgeServer([models["plain"]], serving(out, mutual=True)) as server:
        port = server.address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            with EdgeClient(f"{host}:{port}", showing(out, "device-0")) as client:
                client.infer(models["plain"], 1, IMAGE)
    assert main(["certs", "--out", str(out), "--hosts", "localhost"]) == 0
    assert "kept the CA" in capsys.readouterr().out
    assert (out / "ca.crt").read_bytes() == authority
    (tmp_path / "file").write_text("")
    for wrong in (
        ["--out", str(out), "--hosts", ","],
        ["--out", str(out), "--hosts", "no host"],
        ["--out", str(tmp_path / "file"), "--hosts", "localhost"],
    ):
        assert main(["certs", *wrong]) == 2
        assert capsys.readouterr().err.startswith("splitinfer: error: ")


def test_a_plain_port_scan_leaves_tls_unharmed(certs: Path, models: dict[str, SplitModel]) -> None:
    split = models["plain"]
    with EdgeServer([split], serving(certs)) as server:
        port = int(server.address.rpartition(":")[2])
        for said in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(64), b""):
            with socket.create_connection(("127.0.0.1", port)) as scan:
                scan.sendall(said)
        with EdgeClient(server.address, showing(certs)) as client:
            check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "after a scan")


def test_one_device_cannot_take_the_places_of_the_others(
    certs: Path, models: dict[str, SplitModel], tmp_path: Path
) -> None:
    settings = ServerSettings(
        max_calls=4, security=serving(certs, mutual=True).security, torch_threads=1, parallel_tails=1
    )
    split = models["waiting"]
    small.release.clear()
    try:
        with EdgeServer([split], settings) as server, ThreadPoolExecutor(8) as threads:
            greedy = EdgeClient(
                server.address, dataclasses.replace(showing(certs, "device-0"), stream_up_to_bytes=0, retries=0)
            )
            asked = [threads.submit(greedy.infer, split, 0, IMAGE) for _ in range(6)]
            refused = next(iter(as_completed(asked)))
            assert "calls that this edge takes of device-0" in str(refused.exception())
            with EdgeClient(server.address, showing(certs, "device-1")) as other:
                answer = threads.submit(other.infer, split, 0, IMAGE)
                small.release.set()
                check_answer(answer.result().output, split(IMAGE), "device 1 beside a greedy device 0")
            wait(asked)
            assert sum(one.exception() is None for one in asked) == 3
            greedy.close()
    finally:
        small.release.set()


def test_a_certificate_and_a_token_that_name_two_devices_are_refused(
    certs: Path, models: dict[str, SplitModel], tmp_path: Path
) -> None:
    tokens, own, other = tmp_path / "tokens", tmp_path / "own", tmp_path / "other"
    tokens.write_text("device-0 token-of-0\ndevice-1 token-of-1\n")
    own.write_text("token-of-0\n")
    other.write_text("token-of-1\n")
    settings = serving(certs, mutual=True)
    settings = dataclasses.replace(settings, security=dataclasses.replace(settings.security, token_file=str(tokens)))
    shown = showing(certs, "device-0")
    split = models["plain"]
    with EdgeServer([split], settings) as server:
        for stream_up_to_bytes in (0, 1 << 20):  # calls of their own, and the open stream
            for file, is_right in ((own, True), (other, False)):
                security = dataclasses.replace(shown.security, token_file=str(file))
                asking = dataclasses.replace(shown, security=security, stream_up_to_bytes=stream_up_to_bytes, retries=0)
                with EdgeClient(server.address, asking) as client:
                    if is_right:
                        check_answer(client.infer(split, 1, IMAGE).output, split(IMAGE), "its own token")
                        continue
                    with pytest.raises(RemoteError, match="'device-0' and the token 'device-1'; they have to"):
                        client.infer(split, 1, IMAGE)


def test_a_kept_answer_is_its_askers_alone(certs: Path, models: dict[str, SplitModel]) -> None:
    """Device 1 repeats the metadata and the bytes of device 0's request, but for the picture."""
    split = models["plain"]
    (crossing,), (other,) = split.run_head(1, IMAGE), split.run_head(1, -IMAGE)
    served: list[object] = []
    sender = (("splitinfer-sender", "the same name of a client"),)
    with EdgeServer([split], serving(certs, mutual=True), observer=served.append) as server:

        def ask(device: str, tensor: torch.Tensor) -> Reply:
            request = Request("plain", split.fingerprint, 1, [tensor], request_id=7)
            with open_channel(server.address, showing(certs, device)) as channel:
                data = channel.unary_unary(INFER)(encode_request(request, Wire()), metadata=sender, timeout=30)
            return decode_reply(data, Wire())

        first, again, stolen = ask("device-0", crossing), ask("device-0", other), ask("device-1", other)
    assert [type(event).__name__ for event in served] == ["TailServed", "Repeated", "TailServed"]
    assert (again.tensors[0] == first.tensors[0]).all()  # its own id, asked twice: the first answer
    check_answer(torch.from_numpy(stolen.tensors[0].copy()), split(-IMAGE), "device 1's own answer")


@pytest.mark.parametrize("way", ["certificate", "token"])
def test_no_device_attends_a_run_as_another(certs: Path, tmp_path: Path, way: str) -> None:
    tokens, own = tmp_path / "tokens", tmp_path / "own"
    tokens.write_text("device-0 token-of-0\ndevice-1 token-of-1\n")
    own.write_text("token-of-1\n")
    if way == "certificate":
        settings, shown = serving(certs, mutual=True), showing(certs, "device-1")
    else:
        settings, shown = serving(certs, tokens=tokens), showing(certs, tokens=own)
    hello = pb.Hello(protocol_version=1, scenario="world", fingerprints=["a"])
    with Hub([["a"], ["a"]], "world", settings) as hub:
        hello.device = 0
        impostor = Attendance(hub.address, lambda result: None, shown)
        with pytest.raises(RemoteError, match="device-1 may not be device 0") as refused:
            impostor.join(hello, connect_s=20, join_s=20)
        impostor.close()
        assert refused.value.status == "PERMISSION_DENIED"
        assert not hub.is_seated(0)
        hello.device = 1
        itself = Attendance(hub.address, lambda result: None, shown)
        with ThreadPoolExecutor(1) as threads:
            joined = threads.submit(itself.join, hello, connect_s=20, join_s=20)
            while not hub.is_seated(1) and not joined.done():
                pass
            hub.send(1, pb.EdgeMessage(start=pb.Start(slots=3)))
            assert joined.result().slots == 3
        itself.close()
