"""The tasks of `./inv`, one explicit Collection for each stage. No logic here: it is in `toolchain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invoke.collection import Collection

from toolchain import deploy, pipeline, views
from toolchain.build import check as check_release
from toolchain.build import find_release
from toolchain.contract import check, proving
from toolchain.contract import recording as contract_recording
from toolchain.core import config as configuration
from toolchain.core.errors import MissingTool
from toolchain.core.process import run as run_program
from toolchain.core.run import Run
from toolchain.host import machine
from toolchain.host.doctor import doctor
from toolchain.metal import audit as metal_audit
from toolchain.metal import cost as metal_cost
from toolchain.metal import inspection, roofline
from toolchain.metal import runs as metal_runs
from toolchain.models.compatibility import examination as guard_request
from toolchain.models.memory import planning as memory_request
from toolchain.models.memory import report as memory_report
from toolchain.models.quality import benchmark as lab
from toolchain.models.quality import choices as request
from toolchain.models.quality import divergence
from toolchain.rehearsal import rehearsal as rehearsal
from toolchain.series import drift, drift_report, manifest
from toolchain.tasks import suite
from toolchain.tasks.command import command, main
from toolchain.upstream import assessment as assessing
from toolchain.upstream import surface as api
from toolchain.upstream import watch
from toolchain.upstream.fork import inquiry as fork_request
from toolchain.upstream.fork import report as fork_report

ROOT = Path(__file__).parent
SOURCES = ("ollama", "ollama_ref", "llama_cpp", "llama_cpp_ref", "workspace")


# -- the whole way ---------------------------------------------------------------------------------


@command(*SOURCES, "prefix", "port", "kv_cache_type")
def ship(run: Run) -> None:
    """From sources to a running service."""
    shipped = pipeline.ship(run)
    run.console.result(shipped, views.shipped(shipped, run.config.deploy.port))


@command(keep="folder to rehearse in, kept afterwards; empty: a temporary one")
def rehearse(run: Run, keep: str = "") -> None:
    """All stages in small, with a rollback."""
    summary = rehearsal.rehearse(run.console, Path(keep) if keep else None)
    run.console.result(summary, rehearsal.report(summary))


@command(
    fast="leave out the tests that are marked slow",
    args="further arguments for pytest, as one string, split as a shell does",
)
def run_tests(run: Run, fast: bool = False, args: str = "") -> None:
    """Run the test suite."""
    argv = suite.command_line(fast=fast, args=args)
    done = run_program(argv, cwd=ROOT, on_line=run.console.note, what="the test suite")
    run.console.result({"passed": True, "seconds": done.seconds}, done.output.strip().splitlines()[-1])


@command("workspace")
def check_machine(run: Run) -> None:
    """What this machine has, and what it lacks."""
    found = doctor(run.config)
    run.console.result(found, views.findings(found))
    missing = [item for item in found if not item.ok]
    if missing:
        raise MissingTool(f"missing: {', '.join(item.name for item in missing)}", hint=missing[0].hint)


@command(*SOURCES, "prefix", "port", "kv_cache_type")
def show_config(run: Run) -> None:
    """Every setting, and where its value came from."""
    rows = configuration.rows(run.config)
    run.console.result(rows, configuration.table(rows))


# -- sources ---------------------------------------------------------------------------------------


@command(*SOURCES)
def prepare(run: Run) -> None:
    """Find both commits, and resolve the pin."""
    found = pipeline.prepare(run)
    run.console.result(found, views.sources(found))


# -- series ----------------------------------------------------------------------------------------


@command(*SOURCES, behaviour="compile llama.cpp's Metal host code, and see which kernels it sends our types to")
def check_series(run: Run, behaviour: bool = True) -> None:
    """Dry run: edits, contract, behaviour."""
    checked = pipeline.check_series(run, pipeline.prepare(run), behaviour=behaviour)
    run.console.result(checked, check.report(checked))
    pipeline.require(checked)


@command(*SOURCES)
def render(run: Run) -> None:
    """Render the series: a diff for each target."""
    rendered = pipeline.render_series(run, pipeline.prepare(run))
    run.console.result(rendered, views.rendered(rendered))


@command(*SOURCES)
def branch(run: Run) -> None:
    """Commit the series as one branch, in scratch."""
    found = pipeline.prepare(run)
    scratch = pipeline.make_scratch(run, found, pipeline.render_series(run, found))
    run.console.result(scratch, f"{scratch.branch} in {scratch.ollama} and {scratch.llama_cpp}")


@command(
    *SOURCES,
    since="the oldest build of llama.cpp to look at",
    until="the newest; empty: the newest there is",
    every="builds between two points; 0: some 75 points",
    candidates="release candidates of Ollama, too",
    run="compile and run the series as well, at five builds unless --every says otherwise; minutes for each",
    out="folder of drift.html, drift.png and drift.json; empty: in the workspace",
)
def survey_drift(
    context: Run,
    since: str = drift.SINCE,
    until: str = "",
    every: int = 0,
    candidates: bool = False,
    run: bool = False,
    out: str = "",
) -> None:
    """The series against a range of upstream."""
    series = manifest.load_series(context)
    if run:
        proven = proving.prove(context, series, since, until, every)
        context.console.result(proven, proving.report(proven))
        proving.require(proven)
        return
    found = drift.survey(context, series, since, until, every, candidates=candidates)
    page = drift_report.save(found, Path(out).expanduser() if out else context.workspace / "drift")
    context.console.result(found, f"{drift_report.text(found)}\n  {page}")


@command(*SOURCES, keep="leave the last look as it was, so that the next one reports the same again")
def watch_upstream(run: Run, keep: bool = False) -> None:
    """What came upstream since the last look."""
    found = watch.look(run, manifest.load_series(run), keep=keep)
    run.console.result(found, watch.text(found))
    raise SystemExit(found.exit_code)


@command()
def seal(run: Run) -> None:
    """Renew the checksums of the series."""
    path = run.config.series.path
    digest = manifest.seal(Path(path) if path else manifest.OWN_SERIES)
    run.console.result({"series_sha256": digest}, f"series {digest}")


@command(
    *SOURCES,
    tree="build, tag or commit to record on (repeatable, or with commas); empty: the first served and the newest",
)
def record_contract(run: Run, tree: Sequence[str] = ()) -> None:
    """What our sources use of llama.cpp, anew."""
    recorded = contract_recording.record_anew(run, manifest.load_series(run), tree)
    run.console.result(recorded, contract_recording.report(recorded))


# -- the C surface ---------------------------------------------------------------------------------

_TREE = "branch, tag, build or commit of llama.cpp, a folder, or PATH@REF"
_PLATFORM = "macos-arm64, linux-x86_64 or linux-aarch64"


@command("llama_cpp", "workspace", tree=f"{_TREE}; empty: HEAD", platform=_PLATFORM)
def take_snapshot(run: Run, tree: str = "", platform: str = api.PLATFORM) -> None:
    """What llama.cpp's public headers declare."""
    taken = api.take(run, tree, platform)
    run.console.result(taken, api.surface_report(taken))


@command(
    *SOURCES,
    old=f"{_TREE}; empty: the one that Ollama pins",
    new=f"{_TREE}; empty: HEAD",
    platform=_PLATFORM,
    surface_only="leave Ollama out: everything counts as used",
)
def compare_surfaces(
    run: Run, old: str = "", new: str = "", platform: str = api.PLATFORM, surface_only: bool = False
) -> None:
    """What changed in the C surface, for Ollama."""
    found = api.compare(run, old, new, platform, surface_only=surface_only)
    run.console.result(found, api.report(found))
    raise SystemExit(found.exit_code)


# -- metal -----------------------------------------------------------------------------------------


@command(*SOURCES, tree="llama.cpp tree to check; empty: the scratch tree with the series applied")
def check_metal(run: Run, tree: str = "") -> None:
    """Metal kernels compile and fit the host code."""
    found = inspection.inspect(Path(tree) if tree else pipeline.patched_llama_cpp(run))
    run.console.result(found, inspection.report(found))
    inspection.require(found)


@command(
    *SOURCES,
    tree="patched llama.cpp tree to run; empty: the scratch tree with the series applied",
    full="every pair of types on every head size",
    program="llama.cpp's test-backend-ops, for its cases on a GPU; empty: on a Mac, the one in the tree's build folder",
)
def run_metal(run: Run, tree: str = "", full: bool = False, program: str = "") -> None:
    """Run Metal kernels against the reference."""
    ran = metal_runs.choose(
        run,
        Path(tree) if tree else None,
        Path(program) if program else None,
        patched=pipeline.patched_llama_cpp,
        full=full,
    )
    run.console.result(ran, metal_runs.report(ran))
    metal_runs.require(ran)


@command(
    *SOURCES,
    tree="patched llama.cpp tree; empty: the scratch tree with the series applied",
    head="head size of K and V",
    depth="positions for one query (repeatable)",
    prompt="positions for 32 and 512 queries (repeatable)",
)
def cost_metal(
    run: Run, tree: str = "", head: int = 128, depth: Sequence[str] = (), prompt: Sequence[str] = ()
) -> None:
    """What attention costs on a GPU, counted."""
    where = Path(tree) if tree else pipeline.patched_llama_cpp(run)
    found = metal_cost.measure(
        where, manifest.load_series(run), run.config, run.workspace, run.console, head=head,
        depths=[int(one) for one in depth] or [1024, 16384], prompts=[int(one) for one in prompt] or [2048],
    )  # fmt: skip
    estimates = roofline.estimates(found.costs)
    run.console.result(
        {"counted": found, "estimates": estimates}, f"{metal_cost.report(found)}\n{roofline.report(estimates)}"
    )


@command(*SOURCES, "fork", branch="branch to audit (repeatable); empty: every one", tree="audit this tree instead")
def audit_metal(run: Run, branch: Sequence[str] = (), tree: str = "") -> None:
    """Which cache types have which Metal kernels."""
    found = metal_audit.choose(run, branch, Path(tree) if tree else None)
    run.console.result(found, metal_audit.report(found))


# -- the assessment --------------------------------------------------------------------------------


@command(
    *SOURCES,
    "fork",
    branch="branch of the fork; empty: the most promising one",
    now="the day to reckon ages from, in ISO 8601; empty: today",
    platform="where the result is to run, macos or linux; empty: as here",
    model="GGUF file, its URL, or a model in Ollama's store, to plan its context; empty: none",
    ram="GiB of a Mac to plan for; 0: this machine",
    out="folder of assessment.html and assessment.json; empty: in the workspace",
)
def assess(
    run: Run,
    branch: str = "",
    now: str = "",
    platform: str = "",
    model: str = "",
    ram: float = 0.0,
    out: str = "",
) -> None:
    """Decide which path leads to TurboQuant today."""
    found = assessing.assess(run, branch, now, platform, model, ram)
    page = assessing.save(found, Path(out) if out else run.workspace / "assessment")
    run.console.note(f"report: {page}")
    run.console.result(found, assessing.text(found))


# -- forks -----------------------------------------------------------------------------------------

_BRANCH = "branch of the fork (repeatable, or with commas); empty: all"
_NOW = "the day to reckon ages from, in ISO 8601; empty: today"


@command("fork", "llama_cpp", "workspace", branch=_BRANCH, now=_NOW)
def show_freshness(run: Run, branch: Sequence[str] = (), now: str = "") -> None:
    """How old a fork is, and what is its own."""
    with fork_request.joined(run) as both:
        found = fork_request.freshness(run, both, fork_request.names(branch), fork_request.moment(now))
    run.console.result(found, fork_report.freshness(found))


@command("fork", *SOURCES, branch="branch of the fork; empty: the most promising one", now=_NOW)
def show_conflicts(run: Run, branch: str = "", now: str = "") -> None:
    """Merge and cherry-pick a fork, in memory."""
    found = fork_request.onto_the_pin(run, pipeline.prepare(run), branch, now)
    run.console.result(found, fork_report.conflicts(found))


@command("fork", "llama_cpp", "workspace", branch=_BRANCH)
def show_metal(run: Run, branch: Sequence[str] = ()) -> None:
    """Metal kernels by name, on every branch."""
    with fork_request.joined(run) as both:
        found = fork_request.audit(run, both, fork_request.names(branch))
    run.console.result(found, fork_report.metal(found))


# -- build -----------------------------------------------------------------------------------------


@command(
    *SOURCES,
    stock="build upstream as it is, without the series",
    targets="further programs of llama.cpp to build, such as llama-bench,llama-perplexity",
)
def release(run: Run, stock: bool = False, targets: str = "") -> None:
    """Build a release directory."""
    found = pipeline.prepare(run)
    rendered = pipeline.stock(found) if stock else pipeline.render_series(run, found)
    built = pipeline.build(run, found, rendered, tuple(targets.replace(",", " ").split()))
    run.console.result(built, f"release   {pipeline.directory(run, built)}")


@command("workspace", release="id or directory of a release; empty: the newest one built")
def check_built(run: Run, release: str = "") -> None:
    """Hold a release against its manifest."""
    found = check_release(find_release(run, release))
    run.console.result(found, f"{found.id}: {len(found.files)} files as stated")


# -- verify ----------------------------------------------------------------------------------------


@command("workspace", release="id or directory of a release; empty: the newest one built")
def verify_release(run: Run, release: str = "") -> None:
    """Prove what a release does."""
    proven = pipeline.verify(run, find_release(run, release))
    run.console.result(proven, views.verification(proven))


# -- quality ---------------------------------------------------------------------------------------


@command(
    "workspace",
    type="a cache type (repeatable, or with commas); empty: all",
    data="a data set, or dump (repeatable, or with commas); empty: all",
    seed="seed of the data (repeatable, or with commas)",
    rotated="only after the Hadamard transform",
    no_rotated="only as the data is",
    tokens="vectors of a data set, or tokens of a dump",
    head_size="values in a vector of a drawn data set",
    model="GGUF model whose keys and values to dump",
    text="file that the model reads; empty: this toolkit's own documentation",
    release="id or directory of a release that runs the model; empty: the newest one built",
    server="a llama-server to run instead",
    out="folder of report.html, snr.png and quality.json; empty: in the workspace",
)
def measure_quality(
    run: Run,
    type: Sequence[str] = (),
    data: Sequence[str] = (),
    seed: Sequence[str] = (),
    rotated: bool = False,
    no_rotated: bool = False,
    tokens: int = lab.TOKENS,
    head_size: int = lab.HEAD_SIZE,
    model: str = "",
    text: str = "",
    release: str = "",
    server: str = "",
    out: str = "",
) -> None:
    """Signal to noise per bit of every cache type."""
    chosen = request.selection(type, data, seed, rotated, no_rotated, tokens, head_size)
    request.measure(run, chosen, request.source(run, model, text, release, server), out)


@command(
    "workspace",
    model="GGUF model to run",
    text="file to read; empty: this toolkit's own documentation",
    cache="a cache type or K:V, with /plain for no rotation (repeatable, or with commas); empty: a table of ten",
    sweep="each cache also with K and V alone, or one layer at a time, beside f16: alone, layers (or both)",
    bytes="length of the text to use",
    context="tokens of one context",
    program="a llama-perplexity; empty: the newest that ./inv build --targets llama-perplexity made",
)
def compare_caches(
    run: Run,
    model: str = "",
    text: str = "",
    cache: Sequence[str] = (),
    sweep: Sequence[str] = (),
    bytes: int = divergence.BYTES,
    context: int = divergence.CONTEXT,
    program: str = "",
) -> None:
    """Perplexity and KL of a model by cache type."""
    request.compare(run, model, text, cache, sweep, bytes, context, program)


@command(
    "workspace",
    "kv_cache_type",
    model="GGUF file, or a model in Ollama's store; empty: the setting verify.model",
    text="file that the model reads; empty: this toolkit's own documentation",
    release="id or directory of a release that runs the model; empty: the newest one built",
    server="a llama-server to run instead",
    weights_only="read the weights alone, and run nothing",
)
def guard_model(
    run: Run, model: str = "", text: str = "", release: str = "", server: str = "", weights_only: bool = False
) -> None:
    """Whether a model bears the cache type."""
    guard_request.guard(run, model, text, release, server, weights_only)


# -- memory ----------------------------------------------------------------------------------------


@command(
    model="GGUF file, its http(s) URL, or a model in Ollama's store",
    context="tokens, such as 65536 or 64K (repeatable, or with commas); empty: 8K to 128K",
    types="cache types to compare (repeatable, or with blanks); empty: six of them",
    ram="GiB of a Mac to plan for; 0: this machine",
    parallel="sequences at once (OLLAMA_NUM_PARALLEL)",
    unified="the sequences share one cache (llama-server --kv-unified)",
    batch="tokens that are worked on at once (Ollama's num_batch)",
)
def plan_memory(
    run: Run,
    model: str = "",
    context: Sequence[str] = (),
    types: Sequence[str] = (),
    ram: float = 0.0,
    parallel: int = 1,
    unified: bool = False,
    batch: int = 512,
) -> None:
    """What fits: contexts by cache types."""
    memory_request.show(run, model, context, types, ram, parallel, unified, batch)


@command("workspace", "port")
def show_machine(run: Run) -> None:
    """What this machine is."""
    found = machine.look(run.config)
    run.console.result(found, memory_report.machine(found))


# -- deploy ----------------------------------------------------------------------------------------


@command("workspace", "prefix", "port", "kv_cache_type", release="id or directory; empty: the newest one built")
def install(run: Run, release: str = "") -> None:
    """Make a built release the service."""
    state = deploy.install(find_release(run, release), run.config, run.console)
    run.console.result(state, views.deployment(state))


@command("prefix", "port", to="release to go back to; empty: the one before the active one")
def rollback(run: Run, to: str = "") -> None:
    """Go back to the release before."""
    state = deploy.rollback(run.config, run.console, to)
    run.console.result(state, views.deployment(state))


@command("prefix", "port")
def status(run: Run) -> None:
    """What is active and whether it is healthy."""
    state = deploy.status(run.config, run.console)
    run.console.result(state, views.deployment(state))


@command("prefix", lines="how many lines")
def logs(run: Run, lines: int = 100) -> None:
    """The end of the service's log."""
    text = deploy.logs(run.config, lines)
    run.console.result({"log": text.splitlines()}, text)


@command("prefix")
def prune(run: Run) -> None:
    """Delete old releases."""
    state = deploy.prune(run.config, run.console)
    run.console.result(state, views.deployment(state))


@command("prefix")
def uninstall(run: Run) -> None:
    """Stop and remove the service."""
    state = deploy.uninstall(run.config, run.console)
    run.console.result(state, views.deployment(state))


# -- the namespace ---------------------------------------------------------------------------------

namespace = Collection()
for name, task in (
    ("rehearse", rehearse),
    ("test", run_tests),
    ("doctor", check_machine),
    ("config", show_config),
    ("watch", watch_upstream),
    ("ship", ship),
    ("assess", assess),
):
    namespace.add_task(task, name=name)

_sources = Collection("sources")
_sources.add_task(prepare, name="prepare", default=True)

_series = Collection("series")
_series.add_task(check_series, name="check", default=True)
_series.add_task(render, name="render")
_series.add_task(branch, name="branch")
_series.add_task(survey_drift, name="drift")
_series.add_task(record_contract, name="contract")
_series.add_task(seal, name="seal")

_api = Collection("api")
_api.add_task(take_snapshot, name="snapshot")
_api.add_task(compare_surfaces, name="diff", default=True)

_fork = Collection("fork")
_fork.add_task(show_freshness, name="freshness", default=True)
_fork.add_task(show_conflicts, name="conflicts")
_fork.add_task(show_metal, name="metal")

_build = Collection("build")
_build.add_task(release, name="release", default=True)
_build.add_task(check_built, name="check")

_verify = Collection("verify")
_verify.add_task(verify_release, name="release", default=True)

_quality = Collection("quality")
_quality.add_task(measure_quality, name="lab", default=True)
_quality.add_task(compare_caches, name="kl")
_quality.add_task(guard_model, name="guard")

_metal = Collection("metal")
_metal.add_task(check_metal, name="check", default=True)
_metal.add_task(run_metal, name="run")
_metal.add_task(audit_metal, name="audit")
_metal.add_task(cost_metal, name="cost")

_memory = Collection("memory")
_memory.add_task(plan_memory, name="plan", default=True)
_memory.add_task(show_machine, name="machine")

_deploy = Collection("deploy")
_deploy.add_task(install, name="install")
_deploy.add_task(rollback, name="rollback")
_deploy.add_task(status, name="status")
_deploy.add_task(logs, name="logs")
_deploy.add_task(prune, name="prune")
_deploy.add_task(uninstall, name="uninstall")

for group in (_sources, _series, _fork, _api, _build, _verify, _metal, _quality, _memory, _deploy):
    namespace.add_collection(group)


def start() -> None:
    """`./inv`."""
    main(namespace)
