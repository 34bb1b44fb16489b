# Public weights and data, pinned by commit in config/assets.yaml. Only scale `paper` reads any.

from memorization.assets import load_assets

try:
    WANTED = load_assets(REPOSITORY / "config" / "assets.yaml")
except UserError as error:
    sys.exit(f"error: {error}")


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
        asset="|".join(WANTED),
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


rule assets:
    input:
        [
            f"{ASSETS}/{name}.json"
            for name, asset in WANTED.items()
            if CONFIG.text.source == "wikitext" and set(asset.used_by) & set(CONFIG.papers)
        ],
    localrule: True
    message:
        "downloaded weights and data"
