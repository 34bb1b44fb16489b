"""Pages: what they say exists does, and what is generated is in step and comes from results."""

import ast
import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import SimpleNamespace

import fake_geometry
import fake_layernorm
import fake_runs
import fake_tokenswap
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from memorization import gallery
from memorization.claims.ledger import COLUMNS
from memorization.config import Config
from memorization.errors import UserError
from memorization.evaluate.arms import measure_all
from memorization.gallery import runs
from memorization.plan import PLANS
from memorization.provenance.record import provenance, write_table
from memorization.specs import ProbeSpec
from memorization.tables.common import figure_function, pick
from memorization.training.__main__ import collect
from memorization.training.loop import train
from tiny import tiny_group, tiny_run
from tiny_arms import arm, tiny_arms

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "envs/README.md", ROOT / "results/README.md"])
CATALOG = yaml.safe_load((ROOT / "config/figures.yaml").read_text())
PAPERS = list(PLANS)
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
    return [name for cell in first for name in re.findall(r"`([\w.]+)`", cell)]


def example(page: str, word: str) -> str:
    """The first Python block of a page that holds a word."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    return next(source for source in found if word in source)


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
    aliases = {name for entry in CATALOG.values() for name in entry.get("aliases", ())}
    known = {*re.findall(r"^\s*rule (\w+):", rules, re.M), *CATALOG, *aliases}
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

    source = example("README.md", "import exact_match")
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


@pytest.fixture(scope="module")
def arms_root(tmp_path_factory):
    """A results folder with the data and models of a small decoding job, and its spec."""
    root = tmp_path_factory.mktemp("arms") / "test"
    return root, tiny_arms(root)


@pytest.mark.parametrize("page", ["README.md", "docs/tokenswap.md"])
def test_the_example_of_tokenswap_is_right(arms_root, page):
    """Its last lines, on models of ours, write what the formula says, step by step."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from memorization.methods.swap_set import SwapSet

    source = example(page, "import TokenSwapProcessor")
    root, _ = arms_root
    tokenizer = AutoTokenizer.from_pretrained(root / "data/tokenswap/tokenizer")
    models = [AutoModelForCausalLM.from_pretrained(root / "models" / f"{n}-s0") for n in ("wild-L", "background-S")]
    names = {"tokenizer": tokenizer, "model": models[0], "aux": models[1]}
    kept = [line for line in source.splitlines() if "from_pretrained" not in line and "transformers" not in line]
    exec("\n".join(kept), names)
    members = list(SwapSet.named("english-110").coverage(tokenizer).main_ids)
    ids, changed = names["inputs"].input_ids, 0
    while ids.shape[1] < names["written"].shape[1]:
        with torch.no_grad():
            main, aux = (model(ids).logits[0, -1].double().softmax(-1) for model in models)
        final = main.clone()
        final[members] = aux[members] * main[members].sum() / aux[members].sum()
        changed += int(final.argmax() != main.argmax())
        ids = torch.cat([ids, final.argmax()[None, None]], dim=1)
    assert torch.equal(ids, names["written"]) and ids.shape[1] > 40 and changed


@pytest.mark.parametrize("paper", PAPERS)
def test_every_figure_is_on_the_page_of_its_paper(paper):
    page = (ROOT / f"docs/{paper}.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert [name for name in rows if name in CATALOG] == [n for n, e in CATALOG.items() if e["paper"] == paper]


def test_every_set_of_patterns_is_on_its_page():
    page = (ROOT / "docs/patterns.md").read_text()
    config = yaml.safe_load((ROOT / "config/papers/patterns.yaml").read_text())
    for name in config["mixtures"]:
        assert f"`{name}`" in page, name
    kinds = {entry["kind"] for entry in config["sets"].values()}
    assert kinds <= set(re.findall(r"\| `(\w+)` \| ", page))


def test_recipes_domains_and_experiments_of_tokenswap_are_on_its_page():
    page = (ROOT / "docs/tokenswap.md").read_text()
    config = yaml.safe_load((ROOT / "config/papers/tokenswap.yaml").read_text())
    first = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.M)
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert {*config["recipes"], *config["experiments"], *(f"passages_{one}" for one in config["domains"])} <= named
    section = page.split("\n## Experiments\n")[1].split("\n## ")[0]
    for name, experiment in config["experiments"].items():
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}` |"))
        asking = {f for f, e in CATALOG.items() if e["paper"] == "tokenswap" and name in e["experiments"]}
        assert set(re.findall(r"`(tokenswap_\w+)`", row)) == asking, name
        models = {model for arm in experiment["arms"] for model in (arm["model"], arm.get("aux"))}
        assert set(re.findall(r"`(\w+-\w+)`", row)) <= models, name


def test_every_place_that_lists_papers_has_the_same():
    said = re.search(r"^PAPERS = (\[.*\])$", (ROOT / "rules/common.smk").read_text(), re.M)[1]
    assert ast.literal_eval(said) == PAPERS == list(gallery.SHOWN)
    allowed = Config.model_json_schema()["properties"]["papers"]["items"]["enum"]
    assert allowed == PAPERS == list(yaml.safe_load((ROOT / "docs/deviations.yaml").read_text()))
    assert {entry["paper"] for entry in CATALOG.values()} == set(PAPERS)
    assert all(CATALOG[name]["paper"] == paper for paper, names in gallery.SHOWN.items() for name in names)


# ---- columns


def test_measurement_columns_and_metrics_are_documented(data_root, tmp_path):
    """A real run with every probe there is; docs/columns.md names what it writes, no more and no less."""
    probes = "memorization.probes.scheduled"
    every = {"completion": 5, "overlap": 10, "adherence": 10, "sampling": 10, "passages": 10}
    options = {
        "overlap": {"jaccard_order": 2},
        "sampling": {"samples": 2, "temperature": 0.5},
        "passages": {"subsets": ["random_digits"]},
    }
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


def test_columns_and_metrics_of_decoding_arms_are_documented(arms_root, tmp_path):
    """A real job with every method; docs/columns.md names what it writes, and for which data."""
    root, spec = arms_root
    metrics, items = measure_all(spec, root, tmp_path / "work", code="c")
    assert set(metrics["method"]) == {"standard", "tokenswap", "memfree", "cp_fuse", "speculative", "limit"}
    assert sorted(metrics.columns) == sorted(documented("decoding"))
    assert sorted(items.columns) == sorted(documented("decoding items"))
    assert {*metrics["metric"], *items["metric"]} == set(documented("decoding values"))
    text = (ROOT / "docs/columns.md").read_text().split("<!-- decoding values -->")[1]
    for names, data, where in re.findall(r"^\| (`.+?`) \| (\w+) \| (\w+) \|", text.split("\n\n")[0], re.M):
        for name in re.findall(r"`([\w.]+)`", names):
            frames = {"metrics": metrics, "items": items}
            found = {k: set(f.loc[f["metric"] == name, "data"].str.split("_").str[0]) for k, f in frames.items()}
            wanted = {data.split("_")[0]}
            expected = {k: wanted if where in ("both", k) else set() for k in frames}
            assert found == expected, name


def test_an_arm_without_words_has_neither_mass_nor_frequency(arms_root, tmp_path):
    root, spec = arms_root
    one = arm("wild-L").model_copy(update={"measure": ["held_out"]})
    metrics, _ = measure_all(spec.model_copy(update={"arms": [one], "experiments": ["wild"]}), root, tmp_path, code="c")
    assert set(metrics["metric"]) == {"cross_entropy", "cross_entropy_words", "cross_entropy_others"}
    shares = metrics.set_index("metric")
    parts = sum(shares.loc[f"cross_entropy_{part}", ["value", "n"]].prod() for part in ("words", "others"))
    assert parts / shares.loc["cross_entropy", "n"] == pytest.approx(shares.loc["cross_entropy", "value"])


def test_claims_columns_are_documented_in_their_order():
    assert documented("claims") == COLUMNS


FAKES = {
    "patterns": lambda: fake_runs.everything(seeds=1, every=100),
    "tokenswap": lambda: fake_tokenswap.everything(seeds=1, passages=8),
    "layernorm": lambda: fake_layernorm.everything(seeds=1),
    "geometry": lambda: fake_geometry.fake(seeds=1),
}
# metrics that tables take over as they are
VALUES = {
    "tokenswap": ["decoding values"],
    "layernorm": ["labelled values"],
    "geometry": ["representation values", "ngrams values", "toy values"],
}
NAMED = {"metric", "panel", "bin"}  # columns that say what `value` is


@pytest.mark.parametrize("paper", PAPERS)
def test_figure_table_columns_are_documented(paper):
    metrics, items = FAKES[paper]()
    published = pd.read_csv(ROOT / f"config/published/{paper}.csv")
    models = {"M": {"layers": 2, "width": 64}}
    used, made = {"scale"}, set()
    for figure, entry in CATALOG.items():
        if entry["paper"] != paper:
            continue
        frames = [pick(frame, experiment=entry["experiments"]) for frame in (metrics, items)]
        theirs = published[[figure in names.split() for names in published["figure"]]]
        params = {**entry["params"], "models": models, "published": theirs if len(theirs) else None}
        table = figure_function("tables", figure)(*frames, params)
        assert "value" in table and NAMED & set(table.columns), figure
        used |= set(table.columns)
        made |= set(table.get("metric", []))
    title = f"tables of {paper}"
    if paper in VALUES:  # the row of `metric` names those that are not metrics of measurements
        text = (ROOT / "docs/columns.md").read_text().split(f"<!-- {title} -->")[1]
        row = next(line for line in text.splitlines() if line.startswith("| `metric` |"))
        taken = {name for values in VALUES[paper] for name in documented(values)}
        assert made - taken == set(re.findall(r"`(\w+)`", row)) - {"metric"}
    assert used == set(documented(title))


# ---- generated pages


def test_deviations_page_is_in_step():
    page = gallery.deviations_page(ROOT / "docs/deviations.yaml")
    assert (ROOT / "docs/deviations.md").read_text() == page, AGAIN


@pytest.mark.parametrize("paper", PAPERS)
def test_table_of_scales_is_in_step(paper):
    made = gallery.scales_block(ROOT / "config", paper)
    assert gallery.block(gallery.page_of(ROOT, paper), "scales") == made, AGAIN


def test_rule_graph_of_the_readme_names_rules_that_exist():
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("rules/*.smk")])
    known = set(re.findall(r"^\s*rule (\w+):", rules, re.M))
    numbered = {f"{kind}_{paper}" for kind in ("plot", "make_tables") for paper in PAPERS}
    numbered |= set(re.findall(r'f"(make_\w+)_\{', rules))
    sets = yaml.safe_load((ROOT / "config/papers/layernorm.yaml").read_text())["sets"]
    numbered |= {f"make_labelled_{name}" for name in sets}  # these rules have names
    corpora = yaml.safe_load((ROOT / "config/papers/geometry.yaml").read_text())["corpora"]
    numbered |= {f"make_facts_{name}" for name in corpora}
    graph = gallery.block(ROOT / "README.md", "rulegraph")
    assert set(re.findall(r"^    (\w+) --> ", graph, re.M)) <= known | numbered, AGAIN
    for edge in ("train --> test_claims", "train --> decode_arms", "decode_arms --> make_tables_tokenswap"):
        assert edge in graph, AGAIN


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
    for name in ("README.md", *(f"docs/{paper}.md" for paper in PAPERS), "docs/deviations.yaml"):
        (repository / name).write_text((ROOT / name).read_text())
    claims = [
        {"claim": "forgetting", "verdict": "reproduced", "tables": "patterns_tab1"},
        {"claim": "order", "verdict": "contradicted", "tables": "patterns_fig2a, patterns_fig2b", "published": 0.5},
        {"paper": "tokenswap", "claim": "trade_off", "verdict": "inconclusive", "tables": "tokenswap_fig3"},
        {"paper": "layernorm", "claim": "pre_gap", "verdict": "not tested", "tables": "layernorm_fig2"},
        {"paper": "geometry", "claim": "toy_warmup", "verdict": "reproduced", "tables": "geometry_fig4"},
    ]
    results.mkdir(parents=True)
    rows = [{**CLAIM, **claim} for claim in claims]
    pd.DataFrame(rows).reindex(columns=COLUMNS).to_csv(results / "claims.csv", index=False)
    (results / "figures").mkdir()
    for name in (name for names in gallery.SHOWN.values() for name in names):
        picture = np.random.default_rng(0).integers(0, 255, (100, 1500, 3), dtype=np.uint8)
        Image.fromarray(picture).save(results / "figures" / f"{name}.png")
    for name, entry in CATALOG.items():
        write_table(
            pd.DataFrame({"value": [1.0]}),
            results / f"{entry['paper']}/tables/{name}.parquet",
            provenance("c0ffee", [0]),
        )
    jobs = []
    for paper in PAPERS:
        planned = gallery.plan(gallery.load_config(ROOT / "config", {"scale": "laptop"}), paper)
        jobs += [*(f"train/{group}" for group in planned.groups), *(f"decode_arms/{job}" for job in planned.arm_groups)]
        jobs += [f"{kind}/{paper}_{i}" for kind in ("make_tables", "plot") for i in range(len(CATALOG))]
    jobs += runs.APART.values()
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
    tally = {line.split("`")[1]: line for line in readme.splitlines() if ". Claims: " in line}
    assert "1 reproduced" in tally["patterns"] and "1 contradicted" in tally["patterns"]
    assert "0 inconclusive" in tally["patterns"] and "1 inconclusive" in tally["tokenswap"]
    assert "– 1 not tested" in tally["layernorm"] and "– pre_gap" in lines["layernorm_fig2"]
    # the toy model is one job, which trains nothing
    assert "✓ toy_warmup" in lines["geometry_fig4"] and f"| {gallery.minutes(3 * SECONDS)} |" in lines["geometry_fig4"]
    assert "? trade_off" in lines["tokenswap_fig3"] and "trade_off" not in lines["tokenswap_tab12"]
    assert all(f"docs/gallery/{name}.png" in readme for names in gallery.SHOWN.values() for name in names)
    behind = runs.jobs_behind(gallery.load_config(ROOT / "config", {"scale": "laptop"}), "tokenswap", ["sizes"])
    assert f"| {gallery.minutes((len(behind) + 2) * SECONDS)} |" in lines["tokenswap_fig3"]

    assert "| `trade_off` |" in (repository / "docs/tokenswap.md").read_text()
    assert "| `pre_gap` |" in (repository / "docs/layernorm.md").read_text()
    assert "| `toy_warmup` |" in (repository / "docs/geometry.md").read_text()
    page = (repository / "docs/patterns.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `order` |"))
    assert "trade_off" not in page
    assert "Items \\| are forgotten." in row and "2.5 [2, 3], 3 seeds" in row and "| 0.5 |" in row
    assert (repository / "docs/deviations.md").is_file() and "nan" not in row


def test_refresh_twice_changes_nothing(finished, drawn):
    repository, results = finished
    gallery.refresh(repository, results, "laptop")
    pages = [repository / "README.md", *(gallery.page_of(repository, paper) for paper in PAPERS)]
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


MISSING = ["claims.csv", *(f"figures/{names[0]}.png" for names in gallery.SHOWN.values())]


@pytest.mark.parametrize("missing", [*MISSING, *(f"{paper}/tables" for paper in PAPERS)])
def test_without_results_nothing_is_touched_and_one_sentence_says_what_to_do(finished, drawn, missing):
    repository, results = finished
    path = results / missing
    path.rename(results / "elsewhere")
    refused(repository, results, "make figures SCALE=laptop")


def refused(repository, results, why):
    """`refresh` gives one sentence and leaves every page as it was."""
    before = {path: path.read_text() for path in sorted(repository.rglob("*.md"))}
    with pytest.raises(UserError, match=why) as error:
        gallery.refresh(repository, results, "laptop")
    assert "\n" not in str(error.value) and not (repository / "docs/gallery").exists()
    assert {path: path.read_text() for path in sorted(repository.rglob("*.md"))} == before


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_of_one_paper_only_are_refused(finished, drawn, paper):
    repository, results = finished
    ledger = pd.read_csv(results / "claims.csv")
    ledger[ledger["paper"] != paper].to_csv(results / "claims.csv", index=False)
    refused(repository, results, rf"no claims of {paper}: run `make figures SCALE=laptop`")


def test_a_page_without_its_block_changes_nothing(finished, drawn):
    repository, results = finished
    page = repository / "docs/tokenswap.md"
    page.write_text(page.read_text().replace("<!-- claims:end -->", ""))
    refused(repository, results, r"tokenswap\.md has no block claims")


def test_jobs_behind_a_figure_are_those_that_its_target_would_run():
    """With one run and one arm a job: the arms, their models, the judge's, and what tuned models start from."""
    single = {"runs_per_job": 1, "arms_per_job": 1}
    config = gallery.load_config(ROOT / "config", {"seeds": 1, "tokenswap": single})
    planned = gallery.plan(config, "tokenswap")

    def behind(experiment):
        jobs = runs.jobs_behind(config, "tokenswap", [experiment])
        assert len(set(jobs)) == len(jobs)
        pairs = [job.split("/") for job in jobs]
        trained = [planned.groups[job][0] for kind, job in pairs if kind == "train"]
        return sorted(trained), sorted(planned.arm_groups[job][0] for kind, job in pairs if kind == "decode_arms")

    trained, decoded = behind("speculative")
    assert trained == ["background-L-s0", "background-S-s0", "wild-L-s0"] and len(decoded) == 4
    models = ("background-L", "background-S", "half1-L", "half2-L", "mix1-L", "mix2-L", "tuned-L")
    trained, decoded = behind("extreme")
    assert trained == [f"{name}-s0" for name in models] and decoded == sorted(planned.experiments["extreme"])


def test_a_page_without_its_block_is_named(tmp_path):
    (tmp_path / "page.md").write_text("text <!-- claims:begin --> never closed")
    with pytest.raises(UserError, match=r"page\.md has no block claims"):
        gallery.rewrite(tmp_path / "page.md", "claims", "x")
