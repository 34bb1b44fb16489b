# A target that does not exist gets one sentence that names the nearest, instead of an exception. Snakemake does not tell
# the Snakefile its targets, so the command line is read: words that look like a name of ours but are none.

import difflib

from memorization.config import nearest

TARGETS = [
    "all",
    "assets",
    "claims",
    "freeze",
    *PAPERS,
    *CATALOG,
    *(name for entry in CATALOG.values() for name in entry.aliases),
]
KNOWN = {rule.name for rule in workflow.rules} | {CONFIG.scale}


def looks_like_a_target(word):
    """Whether a word of the command line is a misspelled target rather than a file, option or value."""
    named = word.isidentifier() and word not in KNOWN
    return named and (
        word.startswith(tuple(f"{paper}_" for paper in PAPERS)) or difflib.get_close_matches(word, TARGETS)
    )


if Path(sys.argv[0]).stem in ("snakemake", "__main__"):
    for before, word in zip(sys.argv, sys.argv[1:]):
        if looks_like_a_target(word) and not before.startswith("--"):
            sys.exit(f"error: no paper, figure or other target named {word!r}{nearest(word, TARGETS)}")
