# Paper `patterns`: Transformers seek patterns for memorization. Its runs come from config/papers/patterns.yaml.


rule patterns:
    input:
        targets_of("patterns"),
        "<results>/patterns/claims.parquet",
    localrule: True
    message:
        "every figure, table and claim of patterns"
