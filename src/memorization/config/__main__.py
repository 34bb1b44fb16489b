"""`python -m memorization.config schema > config/schema.json`."""

import sys

from memorization.config import schema

if __name__ == "__main__":
    if sys.argv[1:] != ["schema"]:
        sys.exit("usage: python -m memorization.config schema > config/schema.json")
    print(schema(), end="")
