"""What surrounds a run has no influence on git: variables of a hook, hooks, the user's settings, who owns a folder."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, git, new
from toolchain.core.errors import CommandFailed, FetchFailed, MissingTool, NotARepository, NothingToRollBackTo
from toolchain.sources import Repository, command

ROOT = Path(__file__).parents[2]
_SETTINGS = {
    "color.ui": "always",
    "core.attributesFile": "{home}/attributes",
    "core.autocrlf": "true",
    "core.fsmonitor": "{home}/run",
    "core.hooksPath": "{home}/hooks",
    "diff.noprefix": "true",
    "apply.whitespace": "error",
    "grep.lineNumber": "true",
    "i18n.logOutputEncoding": "ISO-8859-1",
    "init.templateDir": "{home}/template",
    "log.showSignature": "true",
    "gpg.program": "{home}/run",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Two commits, the second one signed by nobody we know."""
    where = new(tmp_path / "repo")
    commit(where, {"naïve.c": "int one;\nint two;\n", "main.c": "int main;  \n"}, "erste Änderung")
    git(where, "tag", "v1")
    second = commit(where, {"naïve.c": "int one;\nint three;\n", "main.c": "int main; // x \n"}, "größer")
    text, _, message = git(where, "cat-file", "commit", second).partition("\n\n")
    signed = f"{text}\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n{message}\n"
    made = git(where, "hash-object", "-t", "commit", "-w", "--stdin", stdin=signed.encode())
    git(where, "update-ref", "refs/heads/master", made)
    return where


def _answers(where: Path, folder: Path) -> list[object]:
    """What the toolkit asks git for, in all its ways."""
    with Repository.open(where) as repository:
        head, env = repository.resolve("HEAD"), {"GIT_INDEX_FILE": str(folder / "index")}
        diff = repository.git("diff-tree", "-p", "v1", head)
        (folder / "patch").write_bytes(diff.encode())
        repository.git("read-tree", "v1", env=env)
        tree = Repository(where / ".git", work_tree=where)
        written = Repository(where / ".git", own=True, offline=True, work_tree=folder)
        written.git("read-tree", "-u", "--reset", "v1", env=env)
        return [
            diff,
            (folder / "main.c").read_bytes(),
            repository.git("log", "-p", "--format=%H%x00%s", head),
            repository.git("ls-tree", head),
            repository.paths(head),
            repository.read_blob(head, "naïve.c"),
            repository.grep(head, ["three"], ["."]),
            repository.commit(head),
            repository.describe(head),
            repository.succeeds("apply", "--cached", "--check", folder / "patch", env=env),
            tree.git("status", "--porcelain=v1"),
            Repository(folder / "made", own=True).git("init", "--quiet", "--bare"),
            (folder / "made" / "hooks" / "mine").exists(),
        ]


@pytest.mark.parametrize("name", _SETTINGS)
def test_the_users_settings_have_no_influence(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home, folders = tmp_path / "home", [tmp_path / "without", tmp_path / "with"]
    for folder in (home / "hooks", home / "template" / "hooks", *folders):
        folder.mkdir(parents=True)
    (home / "attributes").write_text("*.c binary\n")
    (home / "template" / "hooks" / "mine").touch()
    for script in (home / "run", home / "hooks" / "post-index-change"):
        script.write_text(f"#!/bin/sh\ntouch {home}/was-run\necho somebody signed it\n")
        script.chmod(0o755)
    (home / "config").touch()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "config"))
    expected = _answers(repo, folders[0])
    git(home, "config", "--file", "config", name, _SETTINGS[name].format(home=home))
    if name == "gpg.program":
        git(home, "config", "--file", "config", "log.showSignature", "true")
    assert _answers(repo, folders[1]) == expected
    assert not (home / "was-run").exists()


def test_a_repository_that_is_read_runs_nothing_and_changes_nothing(repo: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "without", tmp_path / "with"]
    for folder in (tmp_path / "hooks", *folders):
        folder.mkdir()
    for script in (tmp_path / "run", tmp_path / "hooks" / "post-index-change"):
        script.write_text(f"#!/bin/sh\necho $0 >>{tmp_path}/was-run\ncat\n")
        script.chmod(0o755)
    expected = _answers(repo, folders[0])
    (repo / ".git" / "info" / "attributes").write_text("*.c filter=x diff=x merge=x\n")
    settings = {name: value.format(home=tmp_path) for name, value in _SETTINGS.items()}
    runs: tuple[str, ...] = (
        "filter.x.clean",
        "filter.x.smudge",
        "filter.y.process",
        "diff.x.textconv",
        "diff.x.command",
    )
    runs += ("diff.external", "merge.x.driver", "core.sshCommand", "core.pager", "core.editor", "gpg.program")
    settings |= dict.fromkeys(runs, str(tmp_path / "run"))
    settings |= {"core.bigFileThreshold": "1", "core.abbrev": "40", "diff.context": "9", "diff.algorithm": "patience"}
    for name, value in settings.items():
        git(repo, "config", name, value)
    _, first = git(repo, "rev-list", "HEAD").split()
    git(repo, "replace", "HEAD", first)
    for file in repo.glob("*.c"):
        os.utime(file, (1, 1))  # status looks into it again
    with Repository.open(repo) as repository:
        tree = Repository(repository.git_dir, work_tree=repo)
        head, env = repository.resolve("HEAD"), {"GIT_INDEX_FILE": str(folders[1] / "index")}
        found = [repository.git("diff-tree", "-p", "v1", head), repository.git("log", "-p", "--format=%H%x00%s", head)]
        (folders[1] / "patch").write_bytes(found[0].encode())
        repository.git("read-tree", "v1", env=env)
        assert repository.succeeds("apply", "--cached", "--check", folders[1] / "patch", env=env)
        assert found == [expected[0], expected[2]]
        assert [repository.read_blob(head, "naïve.c"), tree.git("status", "--porcelain=v1")] == [expected[5], ""]
        assert repository.grep(head, ["three"], ["."]) == expected[6]
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"),
        *("GIT_NAMESPACE", "GIT_LITERAL_PATHSPECS"),
    ],
)
def test_leaked_variables_have_no_influence(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = new(tmp_path / "other")
    commit(other, {"other": "2"})
    folders = [tmp_path / "without", tmp_path / "with"]
    for folder in folders:
        folder.mkdir()
    expected = _answers(repo, folders[0])
    monkeypatch.setenv(name, str(other / ".git" / {"GIT_OBJECT_DIRECTORY": "objects"}.get(name, "")))
    assert _answers(repo, folders[1]) == expected
    monkeypatch.setenv(name, str(other / ".git"))
    assert Repository(repo / ".git").objects == repo / ".git" / "objects"


def test_attributes_of_the_work_tree_and_of_the_folder_we_are_in_do_not_count(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    expected = _answers(repo, tmp_path / "one")
    (repo / ".gitattributes").write_text("*.c binary\n")
    (repo / ".git" / "info" / "exclude").write_text(".gitattributes\n")
    monkeypatch.chdir(repo)
    assert _answers(repo, tmp_path / "other") == expected


def test_a_bare_repository_opens_for_a_user_who_forbids_to_find_one(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repo), "bare")
    (tmp_path / "config").write_text("[safe]\n\tbareRepository = explicit\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with pytest.raises(AssertionError, match="cannot use bare repository"):
        git(tmp_path / "bare", "rev-parse", "HEAD", env={"GIT_CONFIG_GLOBAL": str(tmp_path / "config")})
    assert Repository.open(tmp_path / "bare").resolve("HEAD") == git(repo, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["repo", "bare", "with space"])
def test_a_repository_of_somebody_else_is_opened_when_it_is_trusted(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name != "repo":
        git(tmp_path, "clone", "--quiet", *(["--bare"] if name == "bare" else []), str(repo), name)
    # git's own tests pretend in this way that a folder has another owner
    monkeypatch.setattr(command, "_INHERITED", (*command._INHERITED, "GIT_TEST_ASSUME_"))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    with pytest.raises(NotARepository, match="dubious ownership") as caught:
        Repository.open(tmp_path / name)
    advice = caught.value.hint.partition(": ")[2]
    assert advice.startswith("git config --global --add safe.directory ")
    assert str(tmp_path / name) in advice
    subprocess.run(["sh", "-c", advice], check=True)
    assert Repository.open(tmp_path / name).resolve("HEAD") == git(repo, "rev-parse", "HEAD")


def test_a_setting_of_git_that_forbids_to_open_a_repository_is_named(repo: Path) -> None:
    # of a git that does not take our own setting for it
    said = "fatal: cannot use bare repository '/r' (safe.bareRepository is 'explicit')"
    with pytest.raises(CommandFailed) as caught:
        Repository(repo / ".git").refuse(said, CommandFailed, "")
    assert "safe.bareRepository" in caught.value.hint


def test_a_partial_clone_stays_one(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--no-checkout", f"file://{repo}", "partial")
    with Repository.open(tmp_path / "partial") as repository:
        assert repository.succeeds("config", "--get-regexp", r"^remote\..*\.promisor$")
        with pytest.raises(FetchFailed, match="partial or damaged"):
            repository.read_blob("HEAD", "main.c")


def test_every_git_of_the_toolkit_runs_in_one_place_and_every_python_without_the_current_folder() -> None:
    allowed = {ROOT / "toolchain/sources" / name for name in ("command.py", "repository.py", "mirror.py")}
    spawned = 0
    for path in (ROOT / "toolchain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                own = isinstance(node, ast.ImportFrom) and node.level > 0
                assert own or path in allowed or "git" not in {name.partition(".")[0] for name in names}, path
            if isinstance(node, ast.List | ast.Tuple) and node.elts:
                words = [ast.unparse(word) for word in node.elts]
                assert words[0] not in ("'git'", '"git"') or isinstance(node.ctx, ast.Store), path
                if words[0] == "sys.executable" and len(words) > 1:
                    spawned += 1
                    assert words[1] in ("'-I'", "'-P'"), f"{path}:{node.lineno}"
    assert spawned > 5


def test_a_configuration_that_is_not_in_utf8(repo: Path) -> None:
    with (repo / ".git" / "config").open("ab") as file:
        file.write("[user]\n\tname = Jörg\n".encode("iso-8859-1"))
    repository = Repository.open(repo)
    assert repository.exists("HEAD", "main.c")
    assert repository.commit("HEAD").subject == "größer"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("git_script", "task", "code"),
    [("exit 69", "deploy.rollback", NothingToRollBackTo.exit_code), ("", "doctor", MissingTool.exit_code)],
)
def test_without_a_git_that_works_what_needs_none_still_works(
    tmp_path: Path, git_script: str, task: str, code: int
) -> None:
    (tmp_path / "bin").mkdir()
    if git_script:
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{git_script}\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    words = (task, "--json", "--set", f"deploy.prefix={tmp_path}/prefix", "--set", f"workspace={tmp_path}/ws")
    program = [sys.executable, "-P", "-c", "import tasks; tasks.start()", *words]
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_without_git_a_command_says_what_is_missing(repo: Path) -> None:
    program = "from pathlib import Path; from toolchain.sources import Repository; Repository.open(Path('.'))"
    env = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "MissingTool: git: no such program" in done.stderr
