# Public weights and data, pinned by commit in config/assets.yaml. Only scale `paper` reads any.

from memorization.assets import load_assets, unpinned
from memorization.config import nearest

try:
    WANTED = load_assets(REPOSITORY / "config" / "assets.yaml")
except UserError as error:
    sys.exit(f"error: {error}")

UNPINNED = unpinned(WANTED)
NEEDED_ASSETS = needed_assets()
UNKNOWN = [name for name in NEEDED_ASSETS if name not in WANTED]
if UNKNOWN:
    sys.exit(f"error: config: no asset named {UNKNOWN[0]!r} in config/assets.yaml{nearest(UNKNOWN[0], WANTED)}")


# downloads may fail for a moment: these, and no other rules, try again by themselves
rule fetch_asset:
    output:
        manifest=f"{ASSETS}/{{asset}}.json",
        folder=directory(f"{ASSETS}/{{asset}}"),
    log:
        "<logs>/fetch_asset/{asset}.log",
    benchmark:
        "<benchmarks>/fetch_asset/{asset}.tsv"
    wildcard_constraints:
        asset="|".join(name for name in WANTED if name not in UNPINNED),
    retries: 3
    localrule: True
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        **code(script_root("fetch_asset")),
        asset=lambda wildcards: WANTED[wildcards.asset].model_dump(),
    message:
        "downloading {wildcards.asset}"
    script:
        "../workflow/scripts/fetch_asset.py"


# one without a commit is planned like the others; its job goes first, says what is missing and ends the run
if UNPINNED:

    use rule fetch_asset as unpinned_asset with:
        wildcard_constraints:
            asset="|".join(UNPINNED),
        priority: 1
        retries: 0
        message:
            "{wildcards.asset} has no commit yet"


rule assets:
    input:
        [f"{ASSETS}/{name}.json" for name in NEEDED_ASSETS],
    localrule: True
    message:
        "downloaded weights and data"
