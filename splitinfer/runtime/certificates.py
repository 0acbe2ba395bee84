"""A private certificate authority and certificates of it, for people without one, through ``cryptography``."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from splitinfer.errors import InputError
from splitinfer.files import alone_in

_CA_DAYS = 3650
_CLOCK_SKEW = timedelta(days=1)
"""Certificates are valid from a day ago, for devices whose clocks are behind."""
_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, *, days: int = _CA_DAYS, key: ec.EllipticCurvePrivateKey | None = None) -> Authority:
        """Make a new one, with a new key on the curve P-256 or the one given."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "splitinfer private CA")])
        builder = _builder(name, name, key, days).add_extension(x509.BasicConstraints(True, path_length=0), True)
        usage = _usage(key_cert_sign=True, crl_sign=True)
        return cls(builder.add_extension(usage, True).sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read ``ca.crt`` and ``ca.key``.

        Raises:
            InputError: they cannot be read or do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{folder}: ca.crt and ca.key are no CA of splitinfer certs ({error})") from None
        key = _read_key(folder / "ca.key")
        if key.public_key() != certificate.public_key():
            raise InputError(f"{folder}: ca.crt and ca.key do not belong together")
        return cls(certificate, key)

    def issue(
        self, name: str, *, hosts: Sequence[str] = (), days: float, ends: datetime | None = None
    ) -> tuple[bytes, bytes]:
        """Return a certificate and its key, both PEM.

        Args:
            name: of whom it is for, the certificate's common name.
            hosts: names and addresses of a server; a certificate without is a client's.
            days: for which it is valid.
            ends: when it ends, instead of ``days`` from now.

        Raises:
            InputError: a host is no host name or address.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(subject, self.certificate.subject, key, days, ends)
            .add_extension(x509.BasicConstraints(False, path_length=None), True)
            .add_extension(_usage(digital_signature=True), True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                False,
            )
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)


def write_certificates(folder: Path, hosts: Sequence[str], *, devices: int = 0, days: int = 397) -> list[str]:
    """Write a CA, a server's and a device's certificate into a folder, each as ``NAME.crt`` and ``NAME.key``.

    A CA that is there already is kept and signs the new certificates, so that this also renews them. Keys can be read
    by their owner alone.

    Args:
        folder: made if it is not there.
        hosts: names and addresses under which devices reach the server.
        devices: also one certificate for each of so many devices, ``device-0`` and so on, which may be no other device.
        days: for which certificates are valid; the CA is for ten years.

    Returns:
        The names of the certificates written.

    Raises:
        InputError: no or wrong hosts, or the folder cannot be used.
    """
    if not hosts:
        raise InputError("hosts: name at least one host or address under which devices reach the server")
    try:
        with alone_in(folder, wait=True):  # two who make a CA at once would leave a mixture
            written = []
            if (folder / "ca.crt").exists():
                authority = Authority.load(folder)
            else:  # a key alone was left by one who was ended before the certificate was written
                key = _read_key(folder / "ca.key") if (folder / "ca.key").exists() else None
                authority = Authority.create(key=key)
                _write(
                    folder, "ca", authority.certificate.public_bytes(serialization.Encoding.PEM), key_pem(authority.key)
                )
                written.append("ca")
            names = ["device", *(f"device-{number}" for number in range(devices))]
            for name, of_server in [("server", tuple(hosts)), *((name, ()) for name in names)]:
                _write(folder, name, *authority.issue(name, hosts=of_server, days=days))
                written.append(name)
    except OSError as error:
        raise InputError(f"cannot write certificates into {folder}: {error.strerror}") from None
    return written


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{file.parent}: ca.crt and ca.key are no CA of splitinfer certs ({error})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(f"{file.parent}: ca.crt and ca.key are no CA of splitinfer certs")
    return key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    ends: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    ends = ends or now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends) - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host):
        raise InputError(f"hosts: {host!r} is no host name or address")
    return x509.DNSName(host)


def _write(folder: Path, name: str, certificate: bytes, key: bytes) -> None:
    """Replace both files, each at once, the key first; it is never readable by others."""
    for file, data, mode in ((f"{name}.key", key, 0o600), (f"{name}.crt", certificate, 0o644)):
        part = folder / f".{file}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as opened:  # noqa: PTH123 - mode
                opened.write(data)
            part.chmod(mode)
            part.replace(folder / file)
        finally:
            part.unlink(missing_ok=True)
