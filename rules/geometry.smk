# Paper `geometry`: representations along training. Its runs come from config/papers/geometry.yaml.


# one rule a set: from docstrings all folders are one job, of downloaded texts there is one a tokenizer
for _name, _set in FACTS.items():

    rule:
        name:
            f"make_facts_{_name}"
        input:
            **facts_inputs(_name),
        output:
            card=[f"<results>/data/geometry/{folder}/card.json" for folder in _set["folders"]],
            dataset=[directory(f"<results>/data/geometry/{folder}/dataset") for folder in _set["folders"]],
        log:
            f"<logs>/make_facts/{_name}.log",
        benchmark:
            f"<benchmarks>/make_facts/{_name}.tsv"
        resources:
            mem_mb=2000 if _set["kind"] == "docstrings" else 32000,
            runtime=60,
        params:
            **code(script_root("make_facts"), FACTS_KINDS[_set["kind"]]),
            set=_set,
            assets=ASSETS,
        message:
            f"text, facts and questions: {_name}"
        script:
            "../workflow/scripts/make_facts.py"


rule score_ngrams:
    input:
        card=ngram_cards(),
    output:
        metrics="<results>/geometry/ngrams/metrics.parquet",
        per_item="<results>/geometry/ngrams/items.parquet",
    log:
        "<logs>/score_ngrams.log",
    benchmark:
        "<benchmarks>/score_ngrams.tsv"
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        **code(script_root("score_ngrams")),
        ngrams=ngram_params(),
        root=lambda wildcards: ROOT,
        scale=CONFIG.scale,
    message:
        "n-grams of the training data"
    script:
        "../workflow/scripts/score_ngrams.py"


rule simulate_toy:
    output:
        metrics="<results>/geometry/toy/metrics.parquet",
        per_item="<results>/geometry/toy/items.parquet",
    log:
        "<logs>/simulate_toy.log",
    benchmark:
        "<benchmarks>/simulate_toy.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        **code(script_root("simulate_toy")),
        toy=CONFIG.geometry.toy.model_dump(mode="json"),
        scale=CONFIG.scale,
    message:
        "the toy model"
    script:
        "../workflow/scripts/simulate_toy.py"


rule geometry:
    input:
        targets_of("geometry"),
        "<results>/geometry/claims.parquet",
    localrule: True
    message:
        "every figure, table and claim of geometry"
