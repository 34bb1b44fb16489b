"""Pages: what they say exists does, and what is generated is in step and comes from results."""

import ast
import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from fake_runs import everything
from PIL import Image

from memorization import gallery
from memorization.claims.ledger import COLUMNS
from memorization.errors import UserError
from memorization.provenance.record import provenance, write_table
from memorization.specs import ProbeSpec
from memorization.tables.common import figure_function, pick
from memorization.training.__main__ import collect
from memorization.training.loop import train
from tiny import tiny_group, tiny_run

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "envs/README.md", ROOT / "results/README.md"])
CATALOG = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
AGAIN = "run `python -m memorization.gallery`"


def code_of(page: Path) -> str:
    """Everything in a page that is set as code: indented, fenced or in backticks."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return "\n".join([*fenced, *re.findall(r"^    .*$", text, re.M), *re.findall(r"`([^`\n]+)`", text)])


def documented(title: str) -> list[str]:
    """Names in the first column of a marked table of docs/columns.md."""
    text = (ROOT / "docs/columns.md").read_text()
    table = re.search(rf"<!-- {title} -->\n((?:\|.*\n)+)", text)
    assert table, f"docs/columns.md has no table {title}"
    first = [line.split("|")[1] for line in table[1].splitlines()[2:]]
    return [name for cell in first for name in re.findall(r"`(\w+)`", cell)]


def anchors(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them from its headings, and those it sets itself."""
    text = page.read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    made = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


# ---- what pages say exists


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    local = [link for link in links if not re.match(r"\w+:", link)]
    broken = []
    for link in local:
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    code = code_of(page)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    known = {*re.findall(r"^\s*rule (\w+):", rules, re.M), *CATALOG}
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets
    assert set(re.findall(r"\bsnakemake ([a-z]\w+)(?=\s|$)", code)) <= known
    for module in re.findall(r"python -m (memorization[\w.]*)", code):
        assert importlib.util.find_spec(module)
    for path in re.findall(r"\b(?:config|docs|envs|profiles|rules|src|tests|workflow)/[\w./-]*\w\.\w+", code):
        assert (ROOT / path).exists() or path.startswith("docs/gallery/"), path


def test_the_two_commands_come_first_in_the_readme():
    commands = re.findall(r"^    (make \w+)", (ROOT / "README.md").read_text(), re.M)
    assert commands[:2] == ["make figures", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_pages_is_python_and_imports_what_exists(page):
    for source in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("memorization"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), source


def test_the_readme_example_of_exact_match_is_right(data_root):
    """Its last two lines, on a model of ours, give what `generate` gives."""
    from memorization.models.build import build
    from memorization.probes.completion import generate, true_completions

    source = re.search(r"```python\n(.*?exact_match.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    lines = source.strip().splitlines()
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 2, 85).tolist() for _ in range(40)]
    model = build(tiny_run().model.model_copy(update={"positions": 90, "vocabulary": 2}), seed=0).eval()
    names = {"model": model, "tokenizer": lambda t: SimpleNamespace(input_ids=t), "texts": texts}
    imports = [line for line in lines if line.startswith("from memorization")]
    short = lines[-1].replace(", 30)", ", 2)")  # two tokens, so that both answers occur
    exec("\n".join([*imports, lines[-2], short]), names)
    written = (generate(model, names["items"], 2) == true_completions(names["items"], 2)).all(1)
    assert np.array_equal(names["memorized"], written) and 0 < written.sum() < len(texts)


def test_every_set_and_figure_is_on_the_page_of_its_paper():
    page = (ROOT / "docs/patterns.md").read_text()
    config = yaml.safe_load((ROOT / "config/papers/patterns.yaml").read_text())
    for name in (*CATALOG, *config["mixtures"]):
        assert f"`{name}`" in page, name
    kinds = {entry["kind"] for entry in config["sets"].values()}
    assert kinds <= set(re.findall(r"\| `(\w+)` \| ", page))


# ---- columns


def test_measurement_columns_and_metrics_are_documented(data_root, tmp_path):
    """A real run with every probe there is; docs/columns.md names what it writes, no more and no less."""
    probes = "memorization.probes.scheduled"
    every = {"completion": 5, "overlap": 10, "adherence": 10, "sampling": 10}
    options = {"overlap": {"jaccard_order": 2}, "sampling": {"samples": 2, "temperature": 0.5}}
    run = tiny_run(
        steps=10,
        probes=[
            ProbeSpec(function=f"{probes}:recency", before=f"{probes}:recency_before", every=2),
            *(
                ProbeSpec(function=f"{probes}:{name}", every=n, options=options.get(name, {}))
                for name, n in every.items()
            ),
        ],
    )
    train(run, data_root, tmp_path / run.name, code="c")
    metrics, items = collect(tiny_group(run), tmp_path)
    assert sorted(metrics.columns) == sorted(documented("metrics"))
    assert sorted(items.columns) == sorted(documented("items"))
    assert {*metrics["metric"], *items["metric"]} == set(documented("values"))


def test_claims_columns_are_documented_in_their_order():
    assert documented("claims") == COLUMNS


def test_figure_table_columns_are_documented():
    metrics, items = everything(seeds=1, every=100)
    published = pd.read_csv(ROOT / "config/published/patterns.csv")
    models = {"M": {"layers": 2, "width": 64}}
    used = {"scale"}
    for figure, entry in CATALOG.items():
        frames = [pick(frame, experiment=entry["experiments"]) for frame in (metrics, items)]
        theirs = published[published["figure"] == figure]
        params = {**entry["params"], "models": models, "published": theirs if len(theirs) else None}
        table = figure_function("tables", figure)(*frames, params)
        assert {"metric", "value"} <= set(table.columns), figure
        used |= set(table.columns)
    assert used == set(documented("tables"))


# ---- generated pages


def test_deviations_page_is_in_step():
    page = gallery.deviations_page(ROOT / "docs/deviations.yaml")
    assert (ROOT / "docs/deviations.md").read_text() == page, AGAIN


def test_table_of_scales_is_in_step():
    assert gallery.block(ROOT / "docs/patterns.md", "scales") == gallery.scales_block(ROOT / "config"), AGAIN


def test_rule_graph_of_the_readme_names_rules_that_exist():
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    known = set(re.findall(r"^\s*rule (\w+):", rules, re.M))
    numbered = {f"{kind}_patterns" for kind in ("plot", "make_tables")} | set(re.findall(r'f"(make_\w+)_\{', rules))
    graph = gallery.block(ROOT / "README.md", "rulegraph")
    assert set(re.findall(r"^    (\w+) --> ", graph, re.M)) <= known | numbered, AGAIN
    assert "train --> test_claims" in graph


def test_numbered_rules_become_one_node_and_colors_go():
    drawn = """---\ntitle: DAG\n---\nflowchart TB\n\tid0[all]\n\tid1[plot_x_0]\n\tid2[plot_x_1]\n\tid3[train]
\tstyle id0 fill:#D95757\n\tid1 --> id0\n\tid2 --> id0\n\tid3 --> id1\n\tid3 --> id2\n"""
    wanted = "```mermaid\nflowchart LR\n    plot_x --> all\n    train --> plot_x\n```"
    assert gallery.rulegraph_block(drawn) == wanted


CLAIM = {
    "paper": "patterns", "claim": "", "statement": "Items | are forgotten.", "source": "sec. 4.1",
    "published": np.nan, "measured": 2.5, "ci_low": 2.0, "ci_high": 3.0, "seeds": 3, "threshold": 1.0,
    "direction": "greater", "verdict": "", "reason": "A reason.", "margin": np.nan, "transform": "linear",
    "published_note": np.nan, "tables": "", "note": np.nan,
}  # fmt: skip
SECONDS = 30.0  # of each job


@pytest.fixture
def finished(tmp_path):
    """A repository and the results of a run: (repository, results)."""
    repository, results = tmp_path / "repository", tmp_path / "repository" / "results" / "laptop"
    (repository / "docs").mkdir(parents=True)
    (repository / "config").symlink_to(ROOT / "config")
    for name in ("README.md", "docs/patterns.md", "docs/deviations.yaml"):
        (repository / name).write_text((ROOT / name).read_text())
    claims = [
        {"claim": "forgetting", "verdict": "reproduced", "tables": "patterns_tab1"},
        {
            "claim": "order",
            "verdict": "contradicted",
            "tables": "patterns_fig2a, patterns_fig2b",
            "published": 0.5,
        },
    ]
    results.mkdir(parents=True)
    rows = [{**CLAIM, **claim} for claim in claims]
    pd.DataFrame(rows).reindex(columns=COLUMNS).to_csv(results / "claims.csv", index=False)
    (results / "figures").mkdir()
    for name in gallery.SHOWN:
        picture = np.random.default_rng(0).integers(0, 255, (100, 1500, 3), dtype=np.uint8)
        Image.fromarray(picture).save(results / "figures" / f"{name}.png")
    for name in CATALOG:
        write_table(
            pd.DataFrame({"value": [1.0]}),
            results / f"patterns/tables/{name}.parquet",
            provenance("c0ffee", [0]),
        )
    planned = gallery.plan(gallery.load_config(ROOT / "config", {"scale": "laptop"}), "patterns")
    jobs = [f"train/{group}" for group in planned.groups]
    jobs += [f"{kind}/patterns_{i}" for kind in ("make_tables", "plot") for i in range(len(CATALOG))]
    for job in jobs:
        path = results / "benchmarks" / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tcpu_time\n{SECONDS}\t0:00:30\t20\n")
    return repository, results


@pytest.fixture
def drawn(monkeypatch):
    """No snakemake is started."""
    monkeypatch.setattr(gallery, "draw_rulegraph", lambda repository: "id0[all]\nid1[train]\nid1 --> id0\n")


def test_refresh_writes_pictures_times_and_verdicts(finished, drawn):
    repository, results = finished
    assert gallery.refresh(repository, results, "laptop") == 0
    with Image.open(repository / "docs/gallery/patterns_fig2a.png") as picture:
        assert picture.size == (1200, 80)
    note = json.loads((repository / "docs/gallery/provenance.json").read_text())
    assert note["scale"] == "laptop" and note["tables"]["patterns_fig2a"]["config"] == "c0ffee"
    assert {"commit", "date", "versions"} <= note.keys() and str(repository) not in json.dumps(note)

    readme = (repository / "README.md").read_text()
    lines = {name: line for name in CATALOG for line in readme.splitlines() if f"`snakemake {name}` |" in line}
    assert lines.keys() == CATALOG.keys()
    assert "✓ forgetting" in lines["patterns_tab1"] and "✗ order" in lines["patterns_fig2a"]
    assert "order" in lines["patterns_fig2b"] and "order" not in lines["patterns_tab1"]
    # figure 6 trains nothing: its two jobs; the mixture of figure 2b has one group or more, of 30 s each
    assert "| 60 s |" in lines["patterns_fig6"]
    planned = gallery.plan(gallery.load_config(ROOT / "config", {"scale": "laptop"}), "patterns")
    groups = len(planned.groups_for(CATALOG["patterns_fig2b"]["experiments"]))
    assert f"| {gallery.minutes((groups + 2) * SECONDS)} |" in lines["patterns_fig2b"]
    assert "1 reproduced" in readme and "1 contradicted" in readme and "0 inconclusive" in readme

    page = (repository / "docs/patterns.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `order` |"))
    assert "Items \\| are forgotten." in row and "2.5 [2, 3], 3 seeds" in row and "| 0.5 |" in row
    assert (repository / "docs/deviations.md").is_file() and "nan" not in row


def test_refresh_twice_changes_nothing(finished, drawn):
    repository, results = finished
    gallery.refresh(repository, results, "laptop")
    pages = [repository / "README.md", repository / "docs/patterns.md"]
    before = [page.read_text() for page in pages]
    gallery.refresh(repository, results, "laptop")
    assert [page.read_text() for page in pages] == before


def test_an_unknown_time_is_a_dash_and_not_a_zero(finished, drawn):
    _, results = finished
    (results / "benchmarks/plot/patterns_12.tsv").unlink()
    config = gallery.load_config(ROOT / "config", {"scale": "laptop"})
    catalog = gallery.load_catalog(ROOT / "config/figures.yaml", config)
    name = list(CATALOG)[12]
    assert gallery.minutes(gallery.figure_seconds(results, name, catalog, config)) == "–"


@pytest.mark.parametrize("missing", ["claims.csv", "figures/patterns_fig2a.png", "patterns/tables"])
def test_without_results_nothing_is_touched_and_one_sentence_says_what_to_do(finished, drawn, missing):
    repository, results = finished
    path = results / missing
    path.rename(results / "elsewhere")
    before = (repository / "README.md").read_text()
    with pytest.raises(UserError, match="make figures SCALE=laptop"):
        gallery.refresh(repository, results, "laptop")
    assert (repository / "README.md").read_text() == before and not (repository / "docs/gallery").exists()


def test_a_page_without_its_block_is_named(tmp_path):
    (tmp_path / "page.md").write_text("text <!-- claims:begin --> never closed")
    with pytest.raises(UserError, match=r"page\.md has no block claims"):
        gallery.rewrite(tmp_path / "page.md", "claims", "x")
