"""Why there is no connection to NATS. Each cause has another remedy."""

import ssl
from enum import Enum, auto

from shared.migration.refusals import Code, Refusal

# Of OpenSSL (X509_V_ERR_…), which Python gives no names.
_EXPIRED = 10
_OTHER_NAMES = frozenset({62, 64})  # of a host, and of an address


class Why(Enum):
    """The causes."""

    AWAY = auto()  # nobody is there, or he does not answer
    NO_TLS = auto()
    EXPIRED = auto()  # the server's certificate
    NAME = auto()  # it is for other names than ours of the server
    AUTHORITY = auto()  # it is signed by another authority than we take; also any other reason not to take it
    CREDENTIALS = auto()
    INBOX = auto()  # answers could not be heard


class Unconnected(Refusal):
    """There is no connection, and why."""

    def __init__(self, why: Why, message: str) -> None:
        """Say it in a sentence, too."""
        is_denied = why in {Why.CREDENTIALS, Why.INBOX}
        super().__init__(Code.NOT_PERMITTED if is_denied else Code.JOURNAL_AWAY, message)
        self.why = why


def why_not_accepted(error: ssl.SSLCertVerificationError) -> Why:
    """What is wrong with a certificate."""
    if error.verify_code == _EXPIRED:
        return Why.EXPIRED
    return Why.NAME if error.verify_code in _OTHER_NAMES else Why.AUTHORITY
