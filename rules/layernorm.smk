# Paper `layernorm`: what LayerNorm parameters do to memorization. Its runs come from config/papers/layernorm.yaml.


# one rule a set, since some sets make a second folder: other items, for the first stage
for _name, _set in LABELLED.items():

    rule:
        name:
            f"make_labelled_{_name}"
        input:
            **labelled_inputs(_name),
        output:
            card=[f"<results>/data/layernorm/{folder}/card.json" for folder in _set["folders"]],
            dataset=[directory(f"<results>/data/layernorm/{folder}/dataset") for folder in _set["folders"]],
        log:
            f"<logs>/make_labelled/{_name}.log",
        benchmark:
            f"<benchmarks>/make_labelled/{_name}.tsv"
        resources:
            mem_mb=16000 if _set["kind"] == "public_images" else 2000,
            runtime=60,
        params:
            **code(script_root("make_labelled"), LABELLED_KINDS[_set["kind"]]),
            set=_set,
            assets=ASSETS,
        message:
            f"labelled data: {_name}"
        script:
            "../workflow/scripts/make_labelled.py"


rule layernorm:
    input:
        targets_of("layernorm"),
        "<results>/layernorm/claims.parquet",
    localrule: True
    message:
        "every figure, table and claim of layernorm"
