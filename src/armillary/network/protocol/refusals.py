"""How a peer is told that it may not have what it asked for."""

from __future__ import annotations

from armillary.errors import ArmillaryError

__all__ = ["Refused"]

# What checking a peer's words raises. Subclasses are told as these, since some cannot be made from a text.
_KINDS: tuple[type[Exception], ...] = (KeyError, NameError, TypeError, ValueError, PermissionError)


class Refused(ArmillaryError):
    """A peer asked for what it may not have: it gets an error packet, and everything is as before.

    Peers know nothing of armillary's classes, so the packet names a builtin one. You do not get this for what
    breaks the protocol itself.

    Args:
        kind: the builtin exception that the peer is told of.
        text: what is wrong, for people.
    """

    def __init__(self, kind: type[Exception], text: str) -> None:
        super().__init__(text)
        self.kind = kind

    @classmethod
    def of(cls, error: Exception) -> Refused:
        """What was raised while a peer's words were looked at, as a refusal."""
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), None)
        if kind is None:
            raise TypeError(f"{error!r} is not about what a peer has said")
        # The text of a KeyError is its argument, and `str` would quote it once more.
        return cls(kind, str(error.args[0]) if kind is KeyError and error.args else str(error))

    @property
    def exception(self) -> Exception:
        """What the peer is told, as an exception."""
        return self.kind(str(self))

    @property
    def message(self) -> str:
        """The ``message`` of the error packet. A `KeyError` puts its text in quotes, as Python does."""
        return f"{self.kind.__name__}: {self.exception}"
