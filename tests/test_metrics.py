"""Metrics: what a passage took, in numbers worked out by hand; few labels, and no names in them."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from storygen import metrics
from storygen.errors import BusyError


def values(name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The present samples of a name, by their labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples]
    return {tuple(sorted(s.labels.items())): s.value for s in samples if s.name == name}


def value(name: str, **labels: str) -> float:
    return values(name).get(tuple(sorted(labels.items())), 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


def test_a_passage_is_timed_from_its_asking(clock):
    before = {
        name: value(f"storygen_{name}")
        for name in (
            "first_token_seconds_sum",
            "tokens_per_second_sum",
            "tokens_total",
        )
    }
    ended = value("storygen_passages_total", reason="stop")
    timer = metrics.PassageTimer()
    clock[0] = 100.5
    timer.took(1)
    clock[0] = 102.5
    timer.took(10)
    timer.took(10)
    timer.ended("stop")
    after = {name: value(f"storygen_{name}") - before[name] for name in before}
    assert after == {
        "first_token_seconds_sum": 0.5,
        "tokens_per_second_sum": 10.0,  # 20 in the two seconds after the first
        "tokens_total": 21.0,
    }
    assert value("storygen_passages_total", reason="stop") - ended == 1


def test_a_passage_without_a_token_has_no_speed(clock):
    before = value("storygen_first_token_seconds_count"), value("storygen_tokens_per_second_count")
    metrics.PassageTimer().ended("cancelled")
    after = value("storygen_first_token_seconds_count"), value("storygen_tokens_per_second_count")
    assert after == before


def test_errors_count_by_kind_and_all_others_as_one():
    busy, unexpected = (
        value("storygen_errors_total", kind=kind) for kind in ("BusyError", "unexpected")
    )
    metrics.error_told(BusyError("a canary"))
    metrics.error_told(KeyError("a canary"))
    metrics.error_told(type("Canary", (Exception,), {})())
    assert value("storygen_errors_total", kind="BusyError") - busy == 1
    assert value("storygen_errors_total", kind="unexpected") - unexpected == 2
    assert "anary" not in metrics.exposition().decode()


def test_an_invented_method_and_status_make_no_new_row():
    metrics.answered("/x", "BREW", 418, 0.001)
    metrics.answered("/x", "SING", 499, 0.001)
    assert value("storygen_http_seconds_count", route="/x", method="other", status="4xx") == 2


def test_the_load_is_asked_for_when_it_is_collected():
    running = [3]
    metrics.watch(lambda: metrics.Load(running[0], 2, 8, 1, 1_000, 1, 0.5))
    assert value("storygen_running") == 3
    running[0] = 5
    assert value("storygen_running") == 5
    assert value("storygen_queue_length") == 2
    assert value("storygen_loaded_model_bytes") == 1_000
    assert value("storygen_step_seconds") == 0.5


def test_a_block_is_timed_however_it_ends(clock):
    before = value("storygen_database_write_seconds_sum")

    def fail() -> None:
        with metrics.timed(metrics.DATABASE_WRITE):
            clock[0] += 0.25
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert value("storygen_database_write_seconds_sum") - before == 0.25


def test_memory_of_the_process_is_there():
    assert value("process_resident_memory_bytes") > 1_000_000
