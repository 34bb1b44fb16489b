"""Command line: `memorization run|report|summary|gallery|lint|pin`. `make` calls it; `snakemake` works without it."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from memorization.config import check_writable, load_config, nearest
from memorization.errors import UserError

# lints that do not apply here, with the reason
IGNORED_LINTS = {
    "Specify a conda environment or container for each rule.": "one pinned environment serves all rules (envs/)"
}


def snakemake(*arguments: str, scale: str | None = None, **options: object) -> subprocess.CompletedProcess:
    """Run the snakemake of this environment in the repository."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    if scale and "--config" in command:  # a second --config would replace the user's
        command.insert(command.index("--config") + 1, f"scale={scale}")
    elif scale:
        command += ["--config", f"scale={scale}"]
    return subprocess.run(command, cwd=repository(), **options)  # type: ignore[call-overload]


def repository() -> Path:
    """Folder of the Snakefile."""
    folder = Path(__file__).parents[2]
    if not (folder / "Snakefile").is_file():
        raise UserError(f"there is no Snakefile in {folder}: install the package from its repository (`make setup`)")
    return folder


def results(scale: str) -> Path:
    """Results folder of a scale."""
    root = Path(load_config(repository() / "config", {"scale": scale}).results)
    return (root if root.is_absolute() else repository() / root) / scale


def run(scale: str, arguments: list[str]) -> int:
    """The whole DAG, then the report, then where everything is."""
    root = results(scale)
    check_writable(root)
    began = time.monotonic()
    # the progress view draws over itself, which a file or a pipe cannot show
    view = ["--logger", "rich"] if sys.stderr.isatty() else []
    done = snakemake(*view, *arguments, scale=scale)
    if done.returncode:
        print(f"\nerror: {why_not(root)}", file=sys.stderr)
        return done.returncode
    seconds = time.monotonic() - began
    code = report(scale)
    print(summary(scale, seconds))
    return code


def why_not(root: Path) -> str:
    """What to do after snakemake failed."""
    if any((repository() / ".snakemake" / "locks").glob("*")):
        return (
            "another snakemake works in this folder, or one was killed here. If none is running, type "
            f"`{relative(Path(sys.executable).parent / 'snakemake')} --unlock` and start again."
        )
    return (
        f"not everything was made: see above, and the logs in {relative(root / 'logs')}. What finished is kept; the "
        "same command goes on from here."
    )


def report(scale: str) -> int:
    """Build Snakemake's HTML report of a scale."""
    target = results(scale) / "report.html"
    temporary = target.with_suffix(".new.html")
    built = snakemake("--report", str(temporary), scale=scale, capture_output=True, text=True)
    if built.returncode:
        print(built.stderr[-3000:], file=sys.stderr)
        print("error: the report could not be built: make what is missing first (`make figures`)", file=sys.stderr)
        return built.returncode
    temporary.replace(target)
    return 0


def relative(path: Path) -> str:
    """Path as a reader would type it."""
    return os.path.relpath(path)


def benchmark_seconds(root: Path) -> tuple[int, float]:
    """(jobs, CPU seconds) from the benchmark files of a scale."""
    jobs, seconds = 0, 0.0
    for path in sorted((root / "benchmarks").rglob("*.tsv")):
        header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
        for row in rows:
            jobs += 1
            value = dict(zip(header, row, strict=False)).get("cpu_time", "-")
            seconds += float(value) if value not in ("-", "NA") else 0.0
    return jobs, seconds


def summary(scale: str, seconds: float | None = None) -> str:
    """Where things are and what they cost, as text."""
    root = results(scale)
    manifests = [json.loads(path.read_text()) for path in sorted((root / "train").glob("*/manifest.json"))]
    runs = sum(len(manifest["runs"]) for manifest in manifests)
    startup = sum(manifest["startup_cpu_seconds"] for manifest in manifests)
    jobs, busy = benchmark_seconds(root)
    lines = ["", f"scale {scale}: done" + (f" in {seconds / 60:.1f} min" if seconds else "")]
    for what, path in {
        "report": root / "report.html",
        "figures": root / "figures",
        "claims": root / "claims.md",
    }.items():
        lines.append(f"  {what:<8} {relative(path)}")
    if busy:
        lines.append(
            f"  {jobs} jobs, {runs} training runs, {busy:.0f} CPU s; importing torch and transformers took "
            f"{startup:.0f} of them ({100 * startup / busy:.0f} %)"
        )
    return "\n".join(lines)


def lint() -> int:
    """snakemake --lint without the lints of IGNORED_LINTS."""
    ran = snakemake("--lint", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    problems, where = [], ""
    for line in ran.stdout.splitlines():
        if line.startswith("Lints for "):
            where = line.removeprefix("Lints for ").rstrip(":")
        elif line.startswith("    * "):
            title = line.removeprefix("    * ")
            if title.rstrip(":") not in IGNORED_LINTS:
                problems.append(f"{where}: {title}")
    if "rror" in ran.stdout.splitlines()[-1]:
        problems.append(ran.stdout[-2000:])
    print("\n".join(problems) or "snakemake --lint: clean")
    return int(bool(problems))


def pin_branches(names: list[str]) -> int:
    """Look up the commits of branches of assets, all that have none or those named, and write them down."""
    from memorization.assets import LOCK, hub_branches, load_assets, pin

    folder = repository() / "config"
    assets = load_assets(folder / "assets.yaml")
    branches = {name: asset for name, asset in assets.items() if asset.branch}
    for name in names:
        if name not in branches:
            raise UserError(f"pin: no asset with a branch is named {name!r}{nearest(name, branches)}")
    wanted = {name: branches[name] for name in names} or {n: a for n, a in branches.items() if a.revision is None}
    done = pin(wanted, folder / LOCK, hub_branches)
    print(f"{len(done)} commits written to config/{LOCK}: commit that file")
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="memorization", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "run": "the whole DAG, then the report; further arguments go to snakemake",
        "report": "build results/<scale>/report.html",
        "summary": "where results are and what they cost",
        "gallery": "refresh docs/gallery and the README's table from the last run",
        "lint": "snakemake --lint, without lints that do not apply",
        "pin": "look up, on the hub, the commits of the branches of assets: those named, or all without one",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--scale", default="laptop")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("run", "pin"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if options.command == "run":
            code = run(options.scale, rest)
        elif options.command == "report":
            code = report(options.scale)
        elif options.command == "gallery":
            from memorization.gallery import refresh

            code = refresh(repository(), results(options.scale), options.scale)
        elif options.command == "lint":
            code = lint()
        elif options.command == "pin":
            code = pin_branches(rest)
        else:
            print(summary(options.scale))
            code = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
