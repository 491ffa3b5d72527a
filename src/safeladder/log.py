"""The package's logger: quiet by default, one place to turn it up."""

import logging

logger = logging.getLogger("safeladder")
