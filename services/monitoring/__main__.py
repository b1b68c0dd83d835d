"""`python -m services.monitoring [--config FILE]`."""

import sys

from services.monitoring.service import DESCRIPTION, serve
from shared.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("services.monitoring", DESCRIPTION, serve))
