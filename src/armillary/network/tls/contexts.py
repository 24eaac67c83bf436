"""TLS contexts for managers, and for devices with their one trusted file."""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

__all__ = ["DeviceContexts", "device_context", "manager_context", "unverified_context"]

# A file as it was when it was loaded: where, which one, and when it was changed.
_Version: TypeAlias = tuple[str, int, int, int, bool]

# More contexts than any program has managers; each holds a few kilobytes. With fewer, a program that goes
# round more managers than this loads each file again, half a millisecond a time.
_MOST_CONTEXTS = 64


def manager_context(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str] | None = None,
    *,
    password: str | None = None,
) -> ssl.SSLContext:
    """The context of a manager that shows a certificate and asks for none.

    Args:
        certificate: its file, in PEM form.
        key: the file of its private key; None if that is in the same file.
        password: of the key, if it is encrypted.

    Raises:
        ValueError: the certificate and the key cannot be used: one of them is missing or broken, they do not
            belong together, or the password is wrong or was not given.
        OSError: a file cannot be read.
    """
    was_asked = False

    def give_password() -> str:
        # Without this the TLS library would ask at the terminal.
        nonlocal was_asked
        was_asked = True
        if password is None:
            raise ValueError("it is encrypted, and no password was given")
        return password

    for file in (certificate, key or certificate):
        with open(file, "rb"):
            pass  # the TLS library would not say which one it cannot read
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Nobody resumes a session here. And a client that leaves at once, as one that only looks at the
    # certificate does, would break the connection under tickets that it never reads.
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key, give_password)
    except ValueError as error:
        reason = str(error)
    except ssl.SSLError as error:
        # The TLS library does not say much more than that it did not like something.
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = "they do not belong together"
        elif was_asked:
            reason = "the password of the key is wrong"
        elif key is None:
            reason = "there must be a certificate and its private key in that file"
        else:
            reason = f"one of them is broken, or is something else ({error.reason or error})"
    else:
        return context
    files = f"the certificate {os.fspath(certificate)}"
    if key is not None:
        files += f" with the private key {os.fspath(key)}"
    raise ValueError(f"cannot use {files}: {reason}")


def device_context(certificates: str | os.PathLike[str], *, assert_hostname: bool = True) -> ssl.SSLContext:
    """The context of a client or service that trusts what is in one file, and nothing that the system trusts.

    Args:
        certificates: a file in PEM form: the manager's certificate, or that of an authority.
        assert_hostname: whether the certificate must be for the host that one connects to.

    Raises:
        ValueError: there is no certificate in the file.
        OSError: the file cannot be read.
    """
    # Not ssl.create_default_context(): that may be strict about what certificates of managers elsewhere say.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = assert_hostname
    try:
        context.load_verify_locations(certificates)
    except ssl.SSLError as error:
        raise ValueError(
            f"there is no certificate in {os.fspath(certificates)}: {error.reason or error}"
        ) from None
    return context


def unverified_context() -> ssl.SSLContext:
    """The context of a connection that only brings the peer's certificate: say nothing over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class DeviceContexts:
    """Contexts of devices, kept as long as the files they were made from stay as they are.

    For programs that connect more than once: clients that reconnect, or many clients to one manager. Use one
    from one thread at a time.
    """

    def __init__(self) -> None:
        self._contexts: OrderedDict[_Version, ssl.SSLContext] = OrderedDict()

    def get(self, certificates: Path, *, assert_hostname: bool = True) -> ssl.SSLContext:
        """What `device_context` makes, from now or from before."""
        status = os.stat(certificates)
        version = (
            os.fspath(certificates),
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            assert_hostname,
        )
        context = self._contexts.get(version)
        if context is None:
            context = self._contexts[version] = device_context(certificates, assert_hostname=assert_hostname)
            if len(self._contexts) > _MOST_CONTEXTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(version)
        return context
