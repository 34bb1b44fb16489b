"""`python -m memorization.gallery`: refresh what needs no results."""

import sys

from memorization.cli import repository
from memorization.errors import UserError
from memorization.gallery import refresh_static

if __name__ == "__main__":
    try:
        refresh_static(repository())
    except UserError as error:
        sys.exit(f"error: {error}")
    print("README.md and docs/ are up to date with the repository")
