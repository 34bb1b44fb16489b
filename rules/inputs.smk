# Input functions and params of the rules, by subject: data, training, figures, claims.


def generators(folders):
    """Code roots of the generators behind some sets."""
    return dict.fromkeys(KINDS[DATA[folder].kind] for folder in folders if DATA[folder].kind in KINDS)


def data_params(folder):
    """What a data set is made of."""
    job, patterns = DATA[folder], CONFIG.patterns
    return {
        "folder": folder,
        "kind": job.kind,
        "options": job.options,
        "seeds": job.seeds,
        "train": job.train,
        "validation": patterns.validation,
        "lengths": list(patterns.lengths),
        "prompt": patterns.prompt,
        "completion": patterns.completion,
    }


def text_assets(*names):
    """Downloaded assets that text is made from, by name; none where it comes from docstrings."""
    return {name: f"{ASSETS}/{name}" for name in names} if CONFIG.text.source == "wikitext" else {}


def training_data(wildcards):
    """Data cards of the sets a group trains on: a card holds the digest of its set."""
    planned = PLANS[GROUPS[wildcards.group]]
    runs = [planned.runs[name] for name in planned.groups[wildcards.group]]
    folders = dict.fromkeys(part.folder for run in runs for part in [*run.data.parts, *run.data.measured])
    return [f"{ROOT}/data/{planned.paper}/{folder}/card.json" for folder in folders]


def training_embedding(wildcards):
    """The frozen embedding, where a run has one."""
    planned = PLANS[GROUPS[wildcards.group]]
    runs = [planned.runs[name] for name in planned.groups[wildcards.group]]
    frozen = any(getattr(run.model, "embedding", "") == "frozen" for run in runs)
    return [f"{ROOT}/data/{planned.paper}/embedding.safetensors"] if frozen else []


def training_first(wildcards):
    """Jobs whose models this one goes on from, and public checkpoints it starts from."""
    planned = PLANS[GROUPS[wildcards.group]]
    runs = [planned.runs[name] for name in planned.groups[wildcards.group]]
    public = [f"{ASSETS}/{run.model.asset}.json" for run in runs if hasattr(run.model, "asset")]
    return [f"{ROOT}/train/{group}/manifest.json" for group in planned.needed_first(wildcards.group)] + public


def needed_assets():
    """Assets that the papers read, as they are configured: at scale `paper` some, at the others none."""
    text = list(text_assets("gpt2", "wikitext"))
    passages = assets_of(CONFIG, PLANS["tokenswap"]) if "tokenswap" in CONFIG.papers else []
    labelled = labelled_assets(CONFIG, PLANS["layernorm"]) if "layernorm" in CONFIG.papers else []
    facts = geometry_assets(CONFIG, PLANS["geometry"]) if "geometry" in CONFIG.papers else []
    return list(dict.fromkeys([*text, *passages, *labelled, *facts]))


def training_memory(wildcards):
    """MB of a training job: start-up, and 20 bytes a weight for the largest model with its gradient and optimizer."""
    planned = PLANS[GROUPS[wildcards.group]]
    largest = max(planned.runs[name].model.parameters for name in planned.groups[wildcards.group])
    return 2000 + 20 * largest // 1_000_000


def passages_params():
    """What passages, background and questions of `tokenswap` are made of."""
    names = ("prefix", "suffix", "domains", "passages", "background", "length", "overlap", "held_out")
    sizes = CONFIG.tokenswap.model_dump(include={*names, "vocabulary", "other_vocabulary", "cloze"})
    # in steps of five: a few more seeds need no new data, and so train nothing again
    last = max(arm.seed for arm in PLANS["tokenswap"].arms.values())
    public = readers(CONFIG, PLANS["tokenswap"])
    more = {"readers": public, "encoded": encoded(PLANS["tokenswap"]), "assets": ASSETS} if public else {}
    return {**sizes, "seeds": 5 * (last // 5 + 1), **more}


def labelled_inputs(folder):
    """What a labelled set is made from: the text corpus, downloaded files, the tokenizer of a public model."""
    one = LABELLED[folder]
    names = [name for name in (one.get("asset"), one["tokenizer"]) if name]
    own = one["kind"] == "docstrings"  # paragraphs are chosen by the corpus's own tokenizer, whoever encodes them
    return {
        **(
            {"corpus": "<results>/data/text/corpus.parquet", "tokenizer": "<results>/data/text/tokenizer"}
            if own
            else {}
        ),
        **({"assets": [f"{ASSETS}/{name}.json" for name in names]} if names else {}),
    }


def facts_inputs(name):
    """What sets with facts are made from: the text corpus, or downloaded files and the tokenizer of a public model."""
    one = FACTS[name]
    if one["kind"] == "docstrings":
        return {"corpus": "<results>/data/text/corpus.parquet", "tokenizer": "<results>/data/text/tokenizer"}
    names = dict.fromkeys([one["tokenizer"], *(part["asset"] for part in one["sets"].values())])
    return {"assets": [f"{ASSETS}/{asset}.json" for asset in names]}


def ngram_cards():
    """Data cards of the sets whose n-grams are counted, and of the questions."""
    return [f"<results>/data/geometry/{folder}/card.json" for folder in ngram_sets(CONFIG)["folders"]]


def ngram_params():
    """What is counted, for which seeds, and by which engine."""
    seeds = [int(name.rsplit("s", 1)[1]) for name in PLANS["geometry"].experiments["ngrams"]]
    return {**ngram_sets(CONFIG), "seeds": seeds, "assets": ASSETS}


def passages_assets():
    """Texts of public domains, and tokenizers that read them."""
    names = passage_assets(CONFIG, PLANS["tokenswap"])
    return {"assets": [f"{ASSETS}/{name}.json" for name in names]} if names else {}


def passages_tokenizer():
    """The tokenizer of the text, where none is trained for the passages."""
    return {} if CONFIG.tokenswap.vocabulary else {"tokenizer": "<results>/data/text/tokenizer"}


def tokenizer_folders():
    """Tokenizers that are made with the passages: a main one, and another if asked for."""
    names = ["tokenizer", *(["tokenizer_other"] if CONFIG.tokenswap.other_vocabulary else [])]
    return {name: f"<results>/data/tokenswap/{name}" for name in names}


def decoding_refs(wildcards):
    """Models that a decoding job loads."""
    return models_of(arm_group_spec(CONFIG, wildcards.arms))


def decoding_models(wildcards):
    """Manifests of the training jobs whose models a decoding job loads: a manifest holds the digest of the weights."""
    owner = PLANS["tokenswap"].group_of()
    groups = dict.fromkeys(owner[ref.run] for ref in decoding_refs(wildcards) if ref.run)
    return [f"{ROOT}/train/{group}/manifest.json" for group in groups]


def decoding_assets(wildcards):
    """Public checkpoints, and the tokenizers of tuned ones."""
    return [f"{ASSETS}/{name}.json" for name in dict.fromkeys(r.asset for r in decoding_refs(wildcards) if r.asset)]


def decoding_memory(wildcards):
    """Memory of a decoding job, MB: 4 bytes a weight of its public checkpoints, which dwarf everything else."""
    return 3000 + sum(ref.parameters for ref in decoding_refs(wildcards) if ref.asset) * 4 // 10**6


def table_function(figure):
    """Dotted name of the function behind a figure's table, such as memorization.tables.patterns:fig2a."""
    paper = CATALOG[figure].paper
    return f"memorization.tables.{paper}:{figure.removeprefix(f'{paper}_')}"


def plot_function(figure):
    """Dotted name of the function that draws a figure."""
    paper = CATALOG[figure].paper
    return f"memorization.figures.{paper}:{figure.removeprefix(f'{paper}_')}"


def plot_params(figure):
    """How a figure is drawn."""
    entry = CATALOG[figure]
    return {"figure": figure, "title": entry.title, "params": {**entry.params, "width": entry.width}}


def run_tables(kind, figures):
    """Tables of the jobs whose runs some figures need."""
    needed = [CATALOG[figure] for figure in figures if kind in CATALOG[figure].needs]
    folders = [folder for entry in needed for folder in PLANS[entry.paper].tables_for(entry.experiments)]
    return [f"<results>/{folder}/{kind}.parquet" for folder in dict.fromkeys(folders)]


def table_params(figure):
    """What a table is made of: its runs by experiment, and numbers from the configuration."""
    entry = CATALOG[figure]
    planned = PLANS[entry.paper]
    runs = {name: planned.experiments[name] for name in entry.experiments}
    data = {planned.runs[run].data_name for names in runs.values() for run in names if run in planned.runs}
    options = {name: list(planned.options[name]) for name in sorted(data) if name in planned.options}
    sizes = {name: size.model_dump() for name, size in getattr(CONFIG, entry.paper).models.items()}
    params = {
        "confidence": CONFIG.claims.confidence,
        "bootstrap": CONFIG.claims.bootstrap,
        **({} if entry.needs else {"models": sizes}),
        **entry.params,
    }
    return {"figure": figure, "runs": runs, "options": options, "params": params}


def claims_runs(kind):
    """Input function: the tables of the jobs whose runs a paper's claims need."""

    def tables(wildcards):
        needed = list(dict.fromkeys(name for claim in CLAIMS[wildcards.paper] for name in claim.experiments))
        return [f"{ROOT}/{folder}/{kind}.parquet" for folder in PLANS[wildcards.paper].tables_for(needed)]

    return tables


def claims_params(wildcards):
    """Claims and the numbers their tests need."""
    planned, claims = PLANS[wildcards.paper], CLAIMS[wildcards.paper]
    needed = list(dict.fromkeys(name for claim in claims for name in claim.experiments))
    return {
        "claims": [claim.model_dump(mode="json") for claim in claims],
        "runs": {name: planned.experiments[name] for name in needed},
        "statistics": CONFIG.claims.model_dump(),
        "scale": CONFIG.scale,
    }
