"""`python -m services.write_cloning`: the data path of one host."""

import sys

from services.write_cloning.service import serve
from shared.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("services.write_cloning", "The data path of one host.", serve))
