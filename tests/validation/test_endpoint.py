"""Both protocols, as one side's endpoint."""

from __future__ import annotations

import pytest

from tests.validation.conftest import MakePlan, MakeTrial
from toolchain.core.errors import ServerFailed
from toolchain.core.validation_errors import WrongModelServed
from toolchain.validation.endpoint import Message
from toolchain.validation.ollama_endpoint import OllamaEndpoint

PROMPT = "The pass number of Lisbon is 4711 today. Words about rivers. The pass number of Lisbon is"


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_an_answer_has_text_tokens_and_times(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    trial = make_trial(make_plan(backend=backend))
    found = trial.at("baseline", 512).generate(PROMPT, tokens=5, listed=3)
    assert found.text == " 4711"
    assert [len(piece.top) for piece in found.pieces] == [3] * 5
    assert found.pieces[0].logprob == found.pieces[0].top[0].logprob
    assert 0 < found.first_s <= found.pieces[-1].at_s <= found.total_s
    assert (found.counters.generated, found.counters.prompt) == (5, len(PROMPT))
    assert found.stop == "limit"


@pytest.mark.parametrize("backend", ["llama-server", "ollama"])
def test_a_model_without_a_template_gets_a_transcript(backend: str, make_plan: MakePlan, make_trial: MakeTrial) -> None:
    asked = [Message(role="user", content="Why?")]
    assert make_trial(make_plan(backend=backend)).at("candidate").chat(asked) == "User: Why?\n\nAssistant:"


def test_a_chat_is_rendered_by_ollama(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = make_trial(make_plan(backend="ollama")).at("candidate")
    assert isinstance(found, OllamaEndpoint)
    templated = OllamaEndpoint(found.client, found.name, context=found.context, pid=0, log=None, options={})
    assert templated.chat([Message(role="user", content="Why?")]) == "<user>Why?</><assistant>"


def test_ollama_gives_up_on_a_token_that_repeats(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    found = make_trial(make_plan(backend="ollama")).at("baseline").generate("a" * 40, tokens=64)
    assert (found.stop, found.text) == ("repeats", "a" * 31)


def test_noise_is_the_candidates_alone(
    make_plan: MakePlan, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TEST_NOISE", "turbo4=3")
    trial = make_trial(make_plan())
    told = [trial.at(side).generate("Once upon a time", tokens=40).text for side in ("baseline", "candidate")]
    assert told[0] != told[1]
    assert told[0] == trial.at("baseline").generate("Once upon a time", tokens=40).text


def test_a_prompt_beyond_the_context_is_refused(make_plan: MakePlan, make_trial: MakeTrial) -> None:
    with pytest.raises(ServerFailed, match="exceeds the context"):
        make_trial(make_plan()).at("baseline", 256).generate("x" * 300, tokens=1)


def test_an_endpoint_with_another_model_is_named(make_plan: MakePlan, make_trial: MakeTrial, model: object) -> None:
    trial = make_trial(make_plan())
    url = trial.at("baseline").server.url  # type: ignore[attr-defined]
    given = make_trial(make_plan(baseline_url=url, candidate_url=url))
    assert given.at("baseline").generate("abc", tokens=1).text
    assert "nothing here states its cache type" in given.sides.unproven[0]
    other = make_plan(baseline_url=url, candidate_url=url)
    other.model.with_name("other.gguf").write_bytes(other.model.read_bytes() + b"\0" * 32)
    with pytest.raises(WrongModelServed, match=r"serves probe\.gguf, not other\.gguf"):
        make_trial(make_plan(model=str(other.model.with_name("other.gguf")), baseline_url=url, candidate_url=url)).at(
            "candidate"
        )
