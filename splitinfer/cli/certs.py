"""``splitinfer certs``: certificates for people without a CA."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def certs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write into; a CA that is there is kept.")],
    hosts: Annotated[
        str, typer.Option(help="Names and addresses under which devices reach the server, separated by commas.")
    ],
    devices: Annotated[
        int, typer.Option(min=0, max=100_000, help="Also one certificate per device: device-0, device-1, ...")
    ] = 0,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long certificates are valid.")] = 397,
) -> None:
    """Make a private CA, and certificates and keys of it for an edge server and its devices.

    It writes ca.crt, ca.key, server.crt, server.key, device.crt and device.key. Run again, it renews the certificates
    under the same CA; servers read them again by themselves. Keep ca.key away from servers and devices. device-3.crt
    makes its holder device 3 of a live run and no other.

    A server takes --tls-cert, --tls-key and, to ask devices for theirs, --client-ca certs/ca.crt; a device takes
    --tls-ca certs/ca.crt, --tls-cert and --tls-key.

    Example:
      splitinfer certs --out certs --hosts edge.local,192.168.1.10
    """
    from splitinfer.runtime.certificates import write_certificates

    names = [host.strip() for host in hosts.split(",") if host.strip()]
    written = write_certificates(out, names, devices=devices, days=days)
    if "ca" not in written:
        print(f"kept the CA in {out}")
    shown = written if len(written) < 6 else [*written[:4], "...", written[-1]]
    print(f"wrote {', '.join(shown)} (.crt and .key) into {out}, for {', '.join(names)}, valid for {days} days")
