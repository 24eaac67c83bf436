"""Services of the lab network, for threads: what a subclass has, its clients can request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._errors import CertificateRefused
from ._exposed import describe
from ._joining import trusted_certificate
from ._options import Options, valid_options
from ._serving import Serving, run_interruptibly
from .constants import PORT
from .network import Device

__all__ = ["Service", "filter_service_start_kwargs"]

# What a service has itself. Clients can request it, but are not told.
_OWN = frozenset(
    {
        "add_tasks",
        "address_manager",
        "emit_notification",
        "emit_notification_threadsafe",
        "identity",
        "ignore_attributes",
        "loop_thread_id",
        "max_clients",
        "name",
        "port",
        "shutdown_handler",
        "start",
    }
)


def filter_service_start_kwargs(**kwargs: Any) -> dict[str, Any]:
    """Those of the keyword arguments that `start` takes; ``auth_password`` as ``password_manager``."""
    return valid_options(kwargs)


class Service(Device):
    """Base of services. Public methods can be called through a manager, and other public attributes read.

    Each request runs in a thread, several at once: whoever has one instrument locks it. A method that is an
    asyncio coroutine function runs in the event loop of the service's tasks.

    If a subclass has a method ``shutdown_service``, clients can end the service with it.

    Args:
        name: by which clients ask for it; the name of its class if None.
        max_clients: how many clients may be linked with it; None, or a number that is not positive, is no
            limit.
        ignore_attributes: names of attributes, or one name, that clients are not told of. They can be
            requested nevertheless.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        max_clients: int | None = None,
        ignore_attributes: str | Iterable[str] | None = None,
    ) -> None:
        # Not `super()`: the next class may be another base of the subclass, with arguments of its own.
        Device.__init__(self, name)
        state = self._msl_device
        state.max_clients = max_clients if max_clients is not None and max_clients > 0 else -1
        if ignore_attributes is not None:
            state.ignored.update(
                [ignore_attributes] if isinstance(ignore_attributes, str) else ignore_attributes
            )

    @property
    def max_clients(self) -> int:
        """How many clients may be linked with it; -1 is no limit."""
        return self._msl_device.max_clients

    def ignore_attributes(self, *names: str) -> None:
        """Do not tell clients of these attributes. To be called before `start`."""
        self._msl_device.ignored.update(names)

    def identity(self) -> dict[str, Any]:
        """What the service tells the manager of itself."""
        attributes = describe(self, _OWN | self._msl_device.ignored)
        return {**self._describe("service"), "attributes": attributes, "max_clients": self.max_clients}

    def emit_notification(self, *args: Any, **kwargs: Any) -> None:
        """Tell something to all clients that are linked with the service, from any thread.

        What a method tells, its caller hears before the result. When the service is not connected, nobody
        hears it.

        Raises:
            TypeError: it is not JSON serializable.
        """
        self._msl_emit(args, kwargs)

    def emit_notification_threadsafe(self, *args: Any, **kwargs: Any) -> None:
        """As `emit_notification`."""
        self._msl_emit(args, kwargs)

    def start(
        self,
        *,
        name: str | None = None,
        host: str = "localhost",
        port: int = PORT,
        timeout: float | None = 10,
        username: str | None = None,
        password: str | None = None,
        password_manager: str | None = None,
        read_limit: int | None = None,
        disable_tls: bool = False,
        cert_file: str | None = None,
        assert_hostname: bool = True,
        auto_save: bool = False,
    ) -> None:
        """Connect to a manager, and serve its clients until the connection ends, or Ctrl-C is pressed.

        It can be started again then.

        Args:
            name: as in ``__init__``, if it is to be another one.
            host: of the manager, as for `connect`, and so on.
            port: of the manager.
            timeout: seconds for connecting, and as many for the manager to let the service in.
            username: of the user.
            password: of the user.
            password_manager: the manager's own password. Managers want one or the other.
            read_limit: the largest request that is accepted, in bytes; larger ones are not answered.
            disable_tls: whether the manager was started without TLS.
            cert_file: the file with the certificate to trust.
            assert_hostname: whether the certificate must be for `host`.
            auto_save: whether to trust the first certificate that `host` shows without asking.

        Raises:
            ConnectionError: there is no connection. The text says what to do.
            TimeoutError: the manager cannot be reached in time.
            ValueError: the manager does not let the service in, because of its name or a password.
        """
        options = Options(
            name=name,
            host=host,
            port=port,
            timeout=timeout,
            username=username,
            password=password,
            password_manager=password_manager,
            read_limit=read_limit,
            disable_tls=disable_tls,
            cert_file=cert_file,
            assert_hostname=assert_hostname,
            auto_save=auto_save,
        )
        try:
            run_interruptibly(self._msl_prepare(options))
        except CertificateRefused:
            pass  # whoever has refused it knows

    def _msl_prepare(self, options: Options) -> Serving:
        """What is done before a run: in the thread that starts it, where somebody can be asked.

        Raises what `start` raises, and CertificateRefused.
        """
        if options.password and options.password_manager:
            raise ValueError(
                'Specify either "password" or "password_manager" but not both.\n'
                "A Manager cannot be started using multiple authentication methods."
            )
        state = self._msl_device
        if options.name is not None:
            state.name = options.name
        state.address_manager = options.address
        certificate = trusted_certificate(options)
        return Serving(self, options, certificate, describe(self, _OWN | state.ignored))

    def _msl_emit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        serving: Serving | None = self._msl_device.serving
        if serving is not None:
            serving.notify(args, kwargs)
