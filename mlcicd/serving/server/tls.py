"""TLS of the server itself: its certificate, and whose certificates callers must have."""

from __future__ import annotations

import ssl

from .options import Options


def tls_context(options: Options) -> ssl.SSLContext | None:
    """What connections are accepted with; None where TLS is not asked for.

    Raises:
        OSError: a file can not be read, is not PEM, needs a password, or the key is not the certificate's
            (`ssl.SSLError` is one).
    """
    if options.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With an empty password, so that a key that has one is an error and no prompt.
    context.load_cert_chain(options.tls_certificate, options.tls_key, password="")
    if options.tls_client_ca is not None:
        context.load_verify_locations(options.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
