"""Client of the RFUAV model service. Needs nothing but Python's standard library."""

from .client import RFUAVClient
from .transport import RFUAVError
from .version import __version__

__all__ = ["RFUAVClient", "RFUAVError", "__version__"]
