# An archive from which a fresh clone plans nothing: results with Snakemake's records of how each was made.


rule freeze:
    input:
        rules.all.input,
    output:
        archive=f"{CONFIG.results}/freeze-{CONFIG.scale}.tar.gz",
    log:
        "<logs>/freeze.log",
    benchmark:
        "<benchmarks>/freeze.tsv"
    localrule: True
    resources:
        mem_mb=500,
        runtime=60,
    params:
        **code(script_root("freeze")),
        root=lambda wildcards: ROOT,
        config=digest_of(CONFIG.model_dump(mode="json")),
    message:
        "archive of results, to be unpacked in a clone of the repository"
    script:
        "../workflow/scripts/freeze.py"
