"""What surrounds a run has no influence on git: variables of a hook, hooks, the user's settings, who owns a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources.gitrepo import commit, git, new
from toolchain.core.errors import NotARepository
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
        tree = Repository(where / ".git", offline=True, work_tree=where)
        written = Repository(where / ".git", offline=True, work_tree=folder)
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
            Repository(folder / "made").git("init", "--quiet", "--bare"),
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


def test_a_configuration_that_is_not_in_utf8(repo: Path) -> None:
    with (repo / ".git" / "config").open("ab") as file:
        file.write("[user]\n\tname = Jörg\n".encode("iso-8859-1"))
    repository = Repository.open(repo)
    assert repository.exists("HEAD", "main.c")
    assert repository.commit("HEAD").subject == "größer"


def test_without_git_a_command_says_what_is_missing(repo: Path) -> None:
    program = "from pathlib import Path; from toolchain.sources import Repository; Repository.open(Path('.'))"
    env = {"PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "MissingTool: git: no such program" in done.stderr
