"""Draw figures, each from its one table, as PDF and PNG, and write the plotted numbers as CSV beside them.

How each figure differs from the paper's is said in its caption, workflow/report/<figure>.rst.
"""

from typing import TYPE_CHECKING, Any

from memorization.figures import style
from memorization.provenance.logs import logging_to
from memorization.provenance.record import read_table
from memorization.tables.common import figure_function

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def main(smk: Any) -> None:
    """Draw every figure of the job."""
    out = smk.output
    for spec, path, pdf, png, csv in zip(smk.params.figures, smk.input.table, out.pdf, out.png, out.csv, strict=True):
        table = read_table(path)
        look = {"scale": smk.params.scale, "watermark": smk.params.style["watermark"]}
        figure = figure_function("figures", spec["figure"])(table, {**spec["params"], **look})
        style.save(figure, table, pdf=pdf, png=png, csv=csv, dpi=smk.params.style["dpi"])


if __name__ == "__main__":
    logging_to(snakemake.log[0])
    main(snakemake)
