# Data sets, made by rule from a seed, and real text. Stored as Hugging Face `datasets` folders beside a data card.


for _number, _folders in jobs_of(SYNTHETIC):

    rule:
        name:
            f"make_pattern_data_{_number}"
        output:
            card=[f"<results>/data/patterns/{folder}/card.json" for folder in _folders],
            dataset=[directory(f"<results>/data/patterns/{folder}/dataset") for folder in _folders],
        log:
            f"<logs>/make_pattern_data/{_number}.log",
        benchmark:
            f"<benchmarks>/make_pattern_data/{_number}.tsv"
        resources:
            mem_mb=1000,
            runtime=10,
        params:
            **code(script_root("make_pattern_data"), *generators(_folders)),
            data=[data_params(folder) for folder in _folders],
        message:
            f"data: {', '.join(_folders)}"
        script:
            "../workflow/scripts/make_pattern_data.py"


rule make_text:
    input:
        **text_assets("gpt2", "wikitext"),
    output:
        corpus="<results>/data/text/corpus.parquet",
        tokenizer=directory("<results>/data/text/tokenizer"),
        card="<results>/data/text/card.json",
    log:
        "<logs>/make_text.log",
    benchmark:
        "<benchmarks>/make_text.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        **code(script_root("make_text")),
        text=CONFIG.text.model_dump(),
    message:
        "real English, and its tokenizer"
    script:
        "../workflow/scripts/make_text.py"


for _number, _folders in jobs_of(TEXTUAL):

    rule:
        name:
            f"make_text_items_{_number}"
        input:
            corpus="<results>/data/text/corpus.parquet",
            tokenizer="<results>/data/text/tokenizer",
        output:
            card=[f"<results>/data/patterns/{folder}/card.json" for folder in _folders],
            dataset=[directory(f"<results>/data/patterns/{folder}/dataset") for folder in _folders],
        log:
            f"<logs>/make_text_items/{_number}.log",
        benchmark:
            f"<benchmarks>/make_text_items/{_number}.tsv"
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            **code(script_root("make_text_items"), *generators(_folders)),
            data=[data_params(folder) for folder in _folders],
        message:
            f"data: {', '.join(_folders)}"
        script:
            "../workflow/scripts/make_text_items.py"


rule make_embedding:
    input:
        **text_assets("gpt2"),
        corpus="<results>/data/text/corpus.parquet",
        tokenizer="<results>/data/text/tokenizer",
    output:
        embedding="<results>/data/patterns/embedding.safetensors",
    log:
        "<logs>/make_embedding.log",
    benchmark:
        "<benchmarks>/make_embedding.tsv"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        **code(script_root("make_embedding")),
        source=CONFIG.text.source,
        widths=sorted({run.model.width for run in plan(CONFIG, "patterns").runs.values()}),
        norm=CONFIG.patterns.embedding_norm,
    message:
        "frozen token embeddings"
    script:
        "../workflow/scripts/make_embedding.py"
