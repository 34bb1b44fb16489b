# Claims, written in config/claims/<paper>.yaml before the run, joined with what the run measured.


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
