"""The langid preprocessor: what is sent of a text, and how its answer reads."""

import json
import time
from typing import Any

import numpy as np
import pytest
from gateway_preprocessor import InvalidInput, Payload, Prepared, Runner, testing
from langid_preprocessor import LABELS, LangId
from langid_preprocessor.text import LENGTH, READ

#: A hostile text of the longest length that is read may take this long, on a busy machine.
SECONDS = 0.5


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(LangId())


def prepare(runner: Runner, text: str, **parameters: Any) -> Prepared | Exception:
    payload = Payload(json.dumps(text).encode(), parameters=json.dumps(parameters).encode())
    (result,) = runner.prepare([payload])
    return result


def sent(runner: Runner, text: str) -> str:
    item = prepare(runner, text)
    assert isinstance(item, Prepared), item
    return "".join(map(chr, item.tensors["codepoints"]))


def reason(runner: Runner, text: str, **parameters: Any) -> tuple[str, str]:
    refused = prepare(runner, text, **parameters)
    assert isinstance(refused, InvalidInput), refused
    (problem,) = refused.problems
    return problem


def labels(runner: Runner, item: Prepared | Exception, scores: list[float]) -> list[dict[str, Any]]:
    assert isinstance(item, Prepared), item
    outputs = {"scores__0": np.array([scores], np.float32)}
    (result,) = runner.finish(outputs, [item.context])
    assert isinstance(result, bytes), result
    found: list[dict[str, Any]] = json.loads(result)["labels"]
    return found


def test_contract() -> None:
    assert testing.check(LangId)["goldens"] >= 8


def test_labels_are_distinct_language_codes() -> None:
    assert len(set(LABELS)) == len(LABELS) >= 40
    assert all(code.isascii() and code.islower() and 2 <= len(code) <= 3 for code in LABELS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,\n\tWORLD!", " hello world "),
        ("ＦＵＬＬ　width", " full width "),
        ("e\u0301te\u0301", " été "),
        ("Strasse & Straße", " strasse straße "),
        ("l’été, ‘quoted’ O'Neill 'n'", " l'été quoted o'neill n "),
        ("col·lecció · fi", " col·lecció fi "),
        ("a\u200db \u202ec\ufeff", " ab c "),
        ("❤\ufe0f love\u0301", " lové "),
        ("हिन्दी में", " हिन्दी में "),
        ("see https://x.org/a?b=c or www.y.org/ now", " see or now "),
        ("mail me@x.org, @you or list_display", " mail or "),
        ("<b class='x'>bold</b> 1 < 2 &amp; &#39;ok&#39;", " bold ok "),
        ("%(count)d of {total}: %s {0} 50% sure {not this}", " of sure not this "),
        ("lone \ud800 surrogate", None),
    ],
)
def test_normalisation(runner: Runner, text: str, expected: str | None) -> None:
    if expected is None:
        path, why = reason(runner, text)
        assert path == "$"
        assert why
    else:
        assert sent(runner, text) == expected


def test_lone_surrogate_that_passed_the_decoder_is_no_letter(runner: Runner) -> None:
    default = runner.preprocessor.parameters_type()
    (item,) = runner.preprocessor.preprocess(["a \ud800 b"], [default])
    assert item.tensors["codepoints"].tolist() == [ord(char) for char in " a b "]


def test_empty_text_is_refused(runner: Runner) -> None:
    path, why = reason(runner, "")
    assert path == "$"
    assert "length >= 1" in why


@pytest.mark.parametrize(
    "text", ["12345", " ", "🙂❤\ufe0f", "https://example.org", "\u0301", "{name}"]
)
def test_text_without_letters_is_undetermined(runner: Runner, text: str) -> None:
    item = prepare(runner, text, top_k=5)
    assert sent(runner, text) == " "
    assert labels(runner, item, [0.0] * len(LABELS)) == [{"label": "und", "score": 1.0}]


def test_long_text_is_cut_between_boundaries(runner: Runner) -> None:
    within = sent(runner, "abcdefg " * 100)
    assert len(within) == LENGTH
    assert within.startswith(" abcdefg ")
    assert within.endswith(" abcdef ")
    assert sent(runner, "abc " * 100) == " " + "abc " * 63 + "ab "
    between = sent(runner, "abcd " * 100)
    assert len(between) == LENGTH
    assert sent(runner, "a" * 254 + " b") == " " + "a" * 254 + " "
    assert sent(runner, "a" * 253 + " b") == " " + "a" * 253 + " "


def test_what_lies_beyond_the_read_characters_does_not_count(runner: Runner) -> None:
    assert sent(runner, "1" * READ + " word") == " "
    assert sent(runner, "1" * (READ - 2) + " word") == " w "


@pytest.mark.parametrize("piece", ["<a", "&", "%(", "{", "a_", "@", "http://", "'", "a\u0301", "ﷺ"])
def test_hostile_text_takes_linear_time(runner: Runner, piece: str) -> None:
    started = time.perf_counter()
    sent(runner, "x" + piece * READ)
    assert time.perf_counter() - started < SECONDS


@pytest.mark.parametrize("top_k", [0, -1, len(LABELS) + 1, 1.5, "3", None, True])
def test_top_k_out_of_bounds(runner: Runner, top_k: object) -> None:
    assert reason(runner, "hello", top_k=top_k)[0] == "parameters.top_k"


@pytest.mark.parametrize("top_k", [1, 2, len(LABELS)])
def test_top_k_best_first_with_full_scores(runner: Runner, top_k: int) -> None:
    scores = np.random.default_rng(7).random(len(LABELS)).astype(np.float32)
    found = labels(runner, prepare(runner, "hello", top_k=top_k), scores.tolist())
    assert len(found) == top_k
    ranked = np.sort(scores)[::-1][:top_k].tolist()
    assert [item["score"] for item in found] == ranked
    assert [scores[LABELS.index(item["label"])] for item in found] == ranked


def test_three_by_default_and_ties_in_the_order_of_the_labels(runner: Runner) -> None:
    found = labels(runner, prepare(runner, "hello"), [0.5] * len(LABELS))
    assert [item["label"] for item in found] == list(LABELS[:3])
