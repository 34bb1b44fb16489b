# Claims, written in config/claims/<paper>.yaml before the run, joined with what the run measured.

from memorization.claims.schema import read_claims

try:
    CLAIMS = {paper: read_claims(REPOSITORY / "config" / "claims" / f"{paper}.yaml").claims for paper in PAPERS}
except UserError as error:
    sys.exit(f"error: {error}")


def claims_runs(kind):
    """Input function: the tables of the jobs whose runs a paper's claims need."""

    def tables(wildcards):
        needed = list(dict.fromkeys(name for claim in CLAIMS[wildcards.paper] for name in claim.experiments))
        return [f"{ROOT}/train/{group}/{kind}.parquet" for group in PLANS[wildcards.paper].groups_for(needed)]

    return tables


def claims_params(wildcards):
    """Claims and the numbers their tests need."""
    planned, claims = PLANS[wildcards.paper], CLAIMS[wildcards.paper]
    needed = list(dict.fromkeys(name for claim in claims for name in claim.experiments))
    return {
        "claims": [claim.model_dump(mode="json") for claim in claims],
        "runs": {name: planned.experiments[name] for name in needed},
        "statistics": CONFIG.claims.model_dump(),
        "scale": CONFIG.scale,
    }


rule test_claims:
    input:
        metrics=claims_runs("metrics"),
        per_item=claims_runs("items"),
    output:
        claims="<results>/{paper}/claims.parquet",
    log:
        "<logs>/test_claims/{paper}.log",
    benchmark:
        "<benchmarks>/test_claims/{paper}.tsv"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        **code_by(
            lambda paper: [script_root("test_claims"), *dict.fromkeys(claim.statistic for claim in CLAIMS[paper])],
            PAPERS,
        ),
        claims=claims_params,
    message:
        "claims of {wildcards.paper}"
    script:
        "../workflow/scripts/test_claims.py"


rule write_ledger:
    input:
        claims=[f"<results>/{paper}/claims.parquet" for paper in CONFIG.papers],
    output:
        csv="<results>/claims.csv",
        markdown="<results>/claims.md",
        html=report(
            "<results>/claims.html",
            caption="../workflow/report/claims.rst",
            category="0. Claims",
            labels={"figure": "ledger", "shows": "every claim with its verdict", "scale": CONFIG.scale},
        ),
    log:
        "<logs>/write_ledger.log",
    benchmark:
        "<benchmarks>/write_ledger.tsv"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        **code(script_root("write_ledger")),
    message:
        "the claims ledger"
    script:
        "../workflow/scripts/write_ledger.py"


rule claims:
    input:
        csv="<results>/claims.csv",
        markdown="<results>/claims.md",
        html="<results>/claims.html",
    localrule: True
    message:
        "claims.csv, claims.md, claims.html"
