"""Keys, certificates, and whom to trust.

`cryptography` is imported by the functions that need it, since that takes longer than connecting does.
A client that already trusts its manager never needs it.

    files         files written whole or not at all
    names         hashes and curves, by the names that people call them
    keys          private keys: made, stored, loaded
    certificates  self-signed certificates: made, stored, loaded
    metadata      what is in a certificate, as data and as text
    contexts      TLS contexts for managers, and for devices with their one trusted file
    own           the certificate that a manager shows
    trust         trust on first use, pinned from then on
"""
