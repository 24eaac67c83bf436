"""Trio-native servers, clients, samplers and managers for laboratories and observatories."""

# The package, from the bottom up. Arrows point down only, and systems stand beside each other: a module may
# import what is further up in this list, and nothing of another system (tests/test_layers.py).
#
#   errors            the few errors that all share, by cause: you, the peer, the network
#   _wire/            bytes, delays and deadlines without I/O: lines, back-off, timetable
#   _runtime/         trio: outbox, sessions with drain, dialling, TLS, mailboxes, signals, exceptions
#   katcp/            KATCP device control
#     protocol/         without I/O: messages, values, sampling, handlers, conversations, mirroring
#     sensors sensor_set aggregates   typed values with a status and a time
#     device server session ...     a device and its clients
#     client reconnect mirror ...   a server and its sensors, from the other side
#   network/          the lab network
#     protocol/         without I/O: packets, their envelopes, codecs, handshakes, who is linked with what
#     store/ tls/       users and the audit; keys, certificates, trust
#     manager peer_session          the manager and its peers
#     client link service reconnect ...   devices: who asks, and who is asked
#     metrics remote_start cli      a manager's numbers over HTTP, its start over SSH, the commands
#   testing/          all of it inside a test's nursery, on streams in memory
#   cli, demo         the ``armillary`` command

from armillary.__about__ import __version__

__all__ = ["__version__"]
