# Paper `tokenswap`: decoding that disrupts memorized sequences. Models and arms come from config/papers/tokenswap.yaml.


rule make_passages:
    input:
        **passages_tokenizer(),
        **passages_assets(),
        corpus="<results>/data/text/corpus.parquet",
    output:
        **{name: directory(folder) for name, folder in tokenizer_folders().items()},
        card=[f"<results>/data/tokenswap/{folder}/card.json" for folder in PASSAGE_SETS],
        dataset=[directory(f"<results>/data/tokenswap/{folder}/dataset") for folder in PASSAGE_SETS],
        questions="<results>/data/tokenswap/cloze/questions.parquet",
    log:
        "<logs>/make_passages.log",
    benchmark:
        "<benchmarks>/make_passages.tsv"
    resources:
        # WikiText-103 is 100 million tokens, and encoding holds all of them at once
        mem_mb=3000 if CONFIG.text.source == "docstrings" else 64000,
        runtime=30 if CONFIG.text.source == "docstrings" else 480,
    params:
        **code(script_root("make_passages")),
        passages=passages_params(),
        folder=lambda wildcards: f"{ROOT}/data/tokenswap",
    message:
        "passages, background, held-out text and questions"
    script:
        "../workflow/scripts/make_passages.py"


rule decode_arms:
    input:
        **tokenizer_folders(),
        models=decoding_models,
        assets=decoding_assets,
        card=[f"<results>/data/tokenswap/{folder}/card.json" for folder in PASSAGE_SETS],
        questions="<results>/data/tokenswap/cloze/questions.parquet",
    output:
        metrics="<results>/tokenswap/decode/{arms}/metrics.parquet",
        per_item="<results>/tokenswap/decode/{arms}/items.parquet",
    log:
        "<logs>/decode_arms/{arms}.log",
    benchmark:
        "<benchmarks>/decode_arms/{arms}.tsv"
    wildcard_constraints:
        arms="s[0-9]+-[0-9]+",
    threads: CONFIG.compute.threads
    resources:
        mem_mb=decoding_memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=CONFIG.compute.gpus,
    params:
        **code(script_root("decode_arms")),
        arms=lambda wildcards: arm_group_spec(CONFIG, wildcards.arms).model_dump(mode="json"),
        root=lambda wildcards: ROOT,
        # not an output: Snakemake deletes the outputs of a job that was killed, and this is what it goes on from
        folder=subpath(output.metrics, parent=True),
    message:
        "decoding {wildcards.arms}"
    script:
        "../workflow/scripts/decode_arms.py"


rule tokenswap:
    input:
        targets_of("tokenswap"),
        "<results>/tokenswap/claims.parquet",
    localrule: True
    message:
        "every figure, table and claim of tokenswap"
