# Tables: the numbers behind each figure. Figures: drawn from one table each. One target a figure, by its name.


for _paper in PAPERS:
    for _number, _figures in jobs_of(figures_of(_paper)):

        rule:
            name:
                f"make_tables_{_paper}_{_number}"
            input:
                metrics=run_tables("metrics", _figures),
                per_item=run_tables("items", _figures),
                published=f"config/published/{_paper}.csv",
            output:
                table=[f"<results>/{_paper}/tables/{figure}.parquet" for figure in _figures],
            log:
                f"<logs>/make_tables/{_paper}_{_number}.log",
            benchmark:
                f"<benchmarks>/make_tables/{_paper}_{_number}.tsv"
            resources:
                mem_mb=2000,
                runtime=20,
            params:
                **code(script_root("make_tables"), *map(table_function, _figures)),
                tables=[table_params(figure) for figure in _figures],
                scale=CONFIG.scale,
            message:
                f"tables: {', '.join(_figures)}"
            script:
                "../workflow/scripts/make_tables.py"

        rule:
            name:
                f"plot_{_paper}_{_number}"
            input:
                table=[f"<results>/{_paper}/tables/{figure}.parquet" for figure in _figures],
            output:
                pdf=[f"<results>/figures/{figure}.pdf" for figure in _figures],
                png=[
                    report(
                        f"<results>/figures/{figure}.png",
                        caption=f"../workflow/report/{CATALOG[figure].caption}",
                        category=_paper,
                        labels={"figure": CATALOG[figure].source, "shows": CATALOG[figure].title},
                    )
                    for figure in _figures
                ],
                csv=[f"<results>/figures/{figure}.csv" for figure in _figures],
            log:
                f"<logs>/plot/{_paper}_{_number}.log",
            benchmark:
                f"<benchmarks>/plot/{_paper}_{_number}.tsv"
            resources:
                mem_mb=1000,
                runtime=10,
            params:
                **code(script_root("plot_figure"), *map(plot_function, _figures)),
                figures=[plot_params(figure) for figure in _figures],
                style=CONFIG.figures.model_dump(),
                scale=CONFIG.scale,
            message:
                f"figures: {', '.join(_figures)}"
            script:
                "../workflow/scripts/plot_figure.py"


# one target a figure: `snakemake patterns_fig2a`
for _figure in CATALOG:

    rule:
        name:
            _figure
        input:
            multiext(f"<results>/figures/{_figure}", ".pdf", ".png", ".csv"),
        localrule: True
        message:
            f"{_figure}"


# and one for each figure of the paper that is a row of a larger one here: `snakemake layernorm_fig13`
for _figure, _entry in CATALOG.items():
    for _alias in _entry.aliases:

        rule:
            name:
                _alias
            input:
                multiext(f"<results>/figures/{_figure}", ".pdf", ".png", ".csv"),
            localrule: True
            message:
                f"{_alias} is part of {_figure}"
