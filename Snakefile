"""Memorization in language and vision-language models: seven papers, one DAG.

    snakemake                        every figure, table and claim at laptop size
    snakemake patterns               one paper; tokenswap and layernorm are others
    snakemake tokenswap_fig3         one figure
    snakemake claims                 the claims ledger
    snakemake -n                     what would run, and why
    snakemake --config scale=smoke   another size (smoke, laptop, gpu, paper)

The rules below only name files; the work is done by workflow/scripts/, which call the library in src/memorization/.
"""

from snakemake.utils import min_version

min_version("9.25")


include: "rules/common.smk"
include: "rules/inputs.smk"


pathvars:
    results=ROOT,
    logs=f"{ROOT}/logs",
    benchmarks=f"{ROOT}/benchmarks",


report: "workflow/report/workflow.rst"


wildcard_constraints:
    paper="|".join(PAPERS),
    group="[A-Za-z0-9_-]+",


include: "rules/assets.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/figures.smk"
include: "rules/claims.smk"
include: "rules/patterns.smk"
include: "rules/tokenswap.smk"
include: "rules/layernorm.smk"
include: "rules/geometry.smk"


rule all:
    default_target: True
    input:
        [targets_of(paper) for paper in CONFIG.papers],
        rules.claims.input,
    localrule: True
    message:
        "every figure, table and claim"


include: "rules/freeze.smk"
include: "rules/targets.smk"
