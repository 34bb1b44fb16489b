"""Real English prose that every machine has: the documentation strings of the pinned Python packages.

Sources are parsed, never imported. Code, doctests, tables, headings, field lists, bullet lists and
mathematics are left out, paragraphs are unwrapped and freed of inline markup, and only what reads as English
sentences is kept. The text is fixed by the installed versions; it is made on the spot and never stored in the
repository.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from memorization.data.words import FUNCTION_WORDS
from memorization.errors import UserError

CHARACTERS_PER_PARAGRAPH = (100, 2000)
MIN_PLAIN_WORDS = 0.95  # share of words without code, digits inside, or inner capitals
MIN_FUNCTION_WORDS = 0.25  # lists of names and captions have less; running English has about 0.4
NEAR_DUPLICATE = 0.5  # a paragraph goes if this share of its word 8-grams was seen before
NGRAM = 8
SPLIT_SHARES = (("train", 0.8), ("validation", 0.1), ("held_out", 0.1))

# A paragraph that names a package of the list is left out rather than masked: what stays is text as somebody
# wrote it, and the package can serve as the label of a classification task. They also go by these names.
ALIASES = (
    "np",
    "sp",
    "pd",
    "plt",
    "mpl",
    "pyplot",
    "pylab",
    "nx",
    "hf",
    "hugging",
    "hub",
    "pytorch",
    "torch",
)

SKIPPED_FOLDERS = {
    "tests",
    "test",
    "testing",
    "_vendor",
    "vendored",
    "_vendored",
    "externals",
    "extern",
    "__pycache__",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the distribution is not called as the package

PROSE_DIRECTIVES = ("note", "warning", "tip", "important", "caution", "attention", "hint")
DROPPED_SECTIONS = {"references", "see also", "bibliography", "authors", "author", "license", "copyright"}
DIRECTIVE = re.compile(r"\.\. *([\w-]+)::\s*$")
UNDERLINE = re.compile(r"([=\-~^*#\"'`+.])\1{2,}$")
TABLE_RULE = re.compile(r"[=+|-]{2,}(\s+[=+|-]{2,})+$")
BULLET = re.compile(r"([-*+•]|\(?\w{1,2}[.)])\s")
TERM = re.compile(r"[*\w.`'\"(][\w\s,.*`'\"\[\]()|{}=-]*(\s?:\s?.*)?$")
NO_PROSE = re.compile(r"[_={}\\<>|@#$^~*`\[\]+&]|::|\.\.|--|:math:|\(\)|\b(e\.g|i\.e|etc)\.$|\.py\b|//| [.,;]")
PLAIN_WORD = re.compile(
    r"[\"'(]*(?:[A-Z]?[a-z]+|[A-Z]+s?)(?:['/-][A-Za-z]?[a-z]*)*[\"')]*[.,;:!?]*[\"')]*$|\(?\d+%?[.,;:)]*$|-$"
)
SENTENCE_END = re.compile(r"(?<![A-Z])(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)[.!?][\"')]*\s+(?=[A-Z\"'(])")
INLINE = (
    (re.compile(r":[\w:+-]+:`[!~]*([^`<]+?)\s*<[^`]*>`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r":(?!math)[\w:+-]+:`[!~]*(?:[\w.]*\.)?([^`]+)`"), r"\1"),  # :class:`~a.b.Name`
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),  # [text](url)
    (re.compile(r"`([^`<]+?)\s*<[^`]*>`_*"), r"\1"),  # `text <url>`_
    (re.compile(r"(?<=[.,;])\s+\[[\w#*]+\]_"), ""),
    # A citation that is part of the sentence ("see [1]_") keeps its bracket, so that the paragraph goes.
    (re.compile(r"(?<=\w)(?<!see)(?<!in)(?<!by)(?<!of)(?<!and)(?<!from)(?<!to)\s+\[[\w#*]+\]_(?=[.,;])"), ""),
    (re.compile(r"``?[~.]*([^`]+)``?_*"), r"\1"),
    (re.compile(r"\*\*?(\w[^*]*)\*\*?"), r"\1"),
    (re.compile("[‘’]"), "'"),
    (re.compile("[“”]"), '"'),
    (re.compile(r"\s+"), " "),
)


def extract_prose(packages: Sequence[str]) -> list[dict[str, str | int]]:
    """Return the prose paragraphs of `packages`, without repeats and near-repeats.

    Rows are sorted by (package, module, place in the module) and have the columns text, package, module (no
    path of this machine), sentences, split. The split is decided by a hash of the text alone, so it does not
    move when a package is added.
    """
    names = {*ALIASES, *(word for package in packages for word in words_of(package))}
    rows: list[dict[str, str | int]] = []
    seen: set[int] = set()
    for package in sorted(set(packages)):
        for module, docstring in docstrings(package):
            for text in paragraphs(docstring):
                if not is_prose(text) or names.intersection(words_of(text)):
                    continue
                if is_repeat(text, seen):
                    continue
                rows.append(
                    {
                        "text": text,
                        "package": package,
                        "module": module,
                        "sentences": len(sentences(text)),
                        "split": split_of(text),
                    }
                )
    return rows


def docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yield (module name, docstring) of a package's modules, classes and functions, without short ones."""
    if "." in package:
        raise UserError(f"{package!r} is a submodule; write the name of a top-level package.")
    spec = importlib.util.find_spec(package)  # of a top-level name this reads the file system and runs no code
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"package {package!r} is not installed; install it or take it off the list of packages.")
    root = Path(next(iter(spec.submodule_search_locations)))
    sources = sorted(root.rglob("*.py"), key=lambda source: source.relative_to(root).parts)
    for source in sources:
        parts = source.relative_to(root).with_suffix("").parts
        if SKIPPED_FOLDERS.intersection(parts):
            continue
        text = source.read_text(encoding="utf-8", errors="ignore")
        if '"""' not in text and "'''" not in text:
            continue
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue  # templates and files for other Python versions
        module = ".".join((package, *(part for part in parts if part != "__init__")))
        for docstring in _docstrings_of(tree):
            yield module, docstring


def _docstrings_of(node: ast.AST) -> Iterator[str]:
    """Look into modules, classes and conditionals only: functions hold most nodes and few docstrings."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring and len(docstring) >= CHARACTERS_PER_PARAGRAPH[0]:
            yield inspect.cleandoc(docstring)
    if isinstance(node, ast.Module | ast.ClassDef | ast.If | ast.Try):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try):
                yield from _docstrings_of(child)


def paragraphs(docstring: str) -> Iterator[str]:
    """Yield the candidate paragraphs of a docstring: runs of lines with one indentation, unwrapped."""
    run: list[str] = []
    run_indent, above = 0, ""  # above: the line over the run if no blank line is between them
    skip_deeper = -1  # >= 0: inside a code block or directive; lines with a larger indentation belong to it
    to_blank = False  # inside a doctest or table, which ends at a blank line
    fenced = dropped_section = False

    def flush() -> Iterator[str]:
        nonlocal run
        if run and not dropped_section and (not above or _indent(above) >= run_indent or TERM.match(above.strip())):
            text = " ".join(run)
            if len(text) >= CHARACTERS_PER_PARAGRAPH[0]:  # unmark only shortens
                yield unmark(text)
        run = []

    for line in [*docstring.expandtabs().splitlines(), ""]:
        body, indent = line.strip(), _indent(line)
        if body.startswith(("```", "~~~")) and not UNDERLINE.match(body):
            yield from flush()
            fenced = not fenced
            continue
        if fenced:
            continue
        if not body:
            yield from flush()
            above, to_blank = "", False
            continue
        if skip_deeper >= 0 and indent > skip_deeper:
            continue
        skip_deeper = -1
        if body.startswith(">>>") or TABLE_RULE.match(body):
            yield from flush()
            to_blank = True
        if to_blank:
            continue
        if UNDERLINE.match(body):
            heading = run[-1].lower().rstrip(":") if run else ""
            run = []
            dropped_section = heading in DROPPED_SECTIONS if heading else dropped_section
            continue
        if body.startswith("..") or body.startswith((":", "@", "|", "+", "$")) or BULLET.match(body):
            yield from flush()
            directive = DIRECTIVE.match(body)
            if not (directive and directive.group(1) in PROSE_DIRECTIVES):
                skip_deeper = indent
            above = ""
            continue
        if run and indent != run_indent:
            last = run[-1]
            yield from flush()
            above = " " * run_indent + last
        if not run:
            run_indent = indent
        run.append(body)
        if body.endswith("::"):
            skip_deeper = indent


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def unmark(text: str) -> str:
    """Remove the inline markup of reStructuredText and Markdown, and line breaks."""
    for pattern, replacement in INLINE:
        text = pattern.sub(replacement, text)
    return text.strip()


def is_prose(text: str) -> bool:
    """Say whether a paragraph reads as English sentences."""
    lo, hi = CHARACTERS_PER_PARAGRAPH
    if not (lo <= len(text) <= hi and text.isascii() and text[0].isupper() and text[-1] in ".!?"):
        return False
    if NO_PROSE.search(text) or text.count("(") != text.count(")") or text.count('"') % 2:
        return False
    words = text.split()
    plain = sum(bool(PLAIN_WORD.match(word)) for word in words)
    return plain >= MIN_PLAIN_WORDS * len(words) and function_word_share(text) >= MIN_FUNCTION_WORDS


def words_of(text: str) -> list[str]:
    """Return the alphabetic words of a text, in lower case."""
    return re.findall(r"[a-z]+", text.lower())


def function_word_share(text: str) -> float:
    """Return the share of words that are among the 110 function words."""
    words = words_of(text)
    return sum(word in _FUNCTION_WORDS for word in words) / max(len(words), 1)


_FUNCTION_WORDS = frozenset(FUNCTION_WORDS)


def sentences(text: str) -> list[str]:
    """Split a paragraph after sentence punctuation that a capital letter follows."""
    parts, start = [], 0
    for match in SENTENCE_END.finditer(text):
        parts.append(text[start : match.end()].strip())
        start = match.end()
    return [part for part in (*parts, text[start:].strip()) if part]


def is_repeat(text: str, seen: set[int]) -> bool:
    """Say whether the text, or `NEAR_DUPLICATE` of its word 8-grams, was seen; if not, add them to `seen`."""
    words = words_of(text)
    grams = {
        int.from_bytes(hashlib.blake2b(" ".join(words[i : i + NGRAM]).encode(), digest_size=8).digest(), "big")
        for i in range(max(1, len(words) - NGRAM + 1))
    }
    if len(grams & seen) >= NEAR_DUPLICATE * len(grams):
        return True
    seen |= grams
    return False


def split_of(text: str) -> str:
    """Return the split of a paragraph, by a hash of its text."""
    point = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
    for split, share in SPLIT_SHARES:
        if point < share:
            return split
        point -= share
    return SPLIT_SHARES[-1][0]


def package_facts(packages: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return version and licence of each package, as its metadata states them."""
    facts = {}
    for package in sorted(set(packages)):
        metadata = importlib.metadata.metadata(DISTRIBUTIONS.get(package, package))

        def field(name: str, metadata: importlib.metadata.PackageMetadata = metadata) -> str:
            return metadata[name].strip() if name in metadata else ""

        classifiers = metadata.get_all("Classifier") or []
        licenses = [line.split(" :: ")[-1] for line in classifiers if line.startswith("License ::")]
        # A free-text field may hold a whole licence; the classifier is then the better short name.
        stated = field("License-Expression") or "; ".join(licenses) or field("License").split("\n")[0]
        facts[package] = {"version": metadata["Version"], "license": stated or "not stated"}
    return facts


def describe(rows: Sequence[dict[str, str | int]], packages: Sequence[str]) -> dict[str, object]:
    """Return the data card of a corpus: digest, counts, share of function words, versions and licences."""
    texts = [str(row["text"]) for row in rows]
    digest = hashlib.sha256("\n\n".join(texts).encode()).hexdigest()
    counts = {
        package: sum(row["package"] == package for row in rows) for package in sorted({str(r["package"]) for r in rows})
    }
    whole = " ".join(texts)
    return {
        "sha256": digest,
        "paragraphs": len(texts),
        "words": len(words_of(whole)),
        "bytes": sum(len(text.encode()) for text in texts),
        "sentences": sum(int(row["sentences"]) for row in rows),
        "function_word_share": round(function_word_share(whole), 4),
        "splits": {split: sum(row["split"] == split for row in rows) for split, _ in SPLIT_SHARES},
        "paragraphs_by_package": counts,
        "packages": package_facts(packages),
        "description": inspect.cleandoc(__doc__ or "").splitlines()[0],
    }
