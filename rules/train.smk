# One rule trains every run of every paper. A job takes the runs of one group in turn.


rule write_run_specs:
    output:
        spec="<results>/train/{group}/spec.json",
    log:
        "<logs>/write_run_specs/{group}.log",
    benchmark:
        "<benchmarks>/write_run_specs/{group}.tsv"
    localrule: True
    resources:
        mem_mb=500,
        runtime=5,
    params:
        **code(script_root("write_run_specs")),
        spec=lambda wildcards: group_spec(CONFIG, GROUPS[wildcards.group], wildcards.group).model_dump(mode="json"),
    message:
        "run specs of {wildcards.group}"
    script:
        "../workflow/scripts/write_run_specs.py"


rule train:
    input:
        spec="<results>/train/{group}/spec.json",
        data=training_data,
        embedding=training_embedding,
        first=training_first,
    output:
        metrics="<results>/train/{group}/metrics.parquet",
        per_item="<results>/train/{group}/items.parquet",
        manifest="<results>/train/{group}/manifest.json",
    log:
        "<logs>/train/{group}.log",
    benchmark:
        "<benchmarks>/train/{group}.tsv"
    threads: CONFIG.compute.threads
    resources:
        mem_mb=training_memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=CONFIG.compute.gpus,
        python=sys.executable,  # of this environment; a resource, since another path is no reason to train again
        save_every_seconds=CONFIG.compute.save_every_seconds,
    params:
        **code_by(lambda group: training_roots(group_spec(CONFIG, GROUPS[group], group)), GROUPS),
        root=lambda wildcards: ROOT,
        # not an output: Snakemake deletes the outputs of a job that was killed, and this is what it goes on from
        folder=subpath(output.manifest, parent=True),
    message:
        "training {wildcards.group}"
    shell:
        # exec: signals reach Python, which saves its state and ends
        "exec {resources.python:q} -m memorization.training --spec {input.spec:q} --root {params.root:q} --work {params.folder:q}/work"
        " --metrics {output.metrics:q} --items {output.per_item:q} --manifest {output.manifest:q}"
        " --save-every-seconds {resources.save_every_seconds} > {log:q} 2>&1"
