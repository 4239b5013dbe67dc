"""Aliases on disk: what they point to, who shares their requests, the way back; and versions that are deleted."""

import json
from pathlib import Path

import pytest
from serving_toys import make_artifact

from models.aliases import Alias, Aliases, Canary, Shadow, etag
from models.catalog import (
    AliasesChanged,
    Catalog,
    ModelNotFound,
    NothingToRollBack,
    VersionInUse,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Model `toy` with four versions."""
    found = Catalog(tmp_path / "models")
    for job in "abcd":
        found.publish("toy", make_artifact(tmp_path / job, job=f"job_{job}", network=False), f"job_{job}")
    return found


def test_an_alias_has_a_canary_and_a_shadow_until_it_is_put_without(catalog: Catalog) -> None:
    canary, shadow = Canary(version=2, percent=12.5), Shadow(version=3)
    catalog.put_alias("toy", "production", version=1, canary=canary, shadow=shadow)
    read = Catalog(catalog.root).served("toy")["production"]
    assert (read.version, read.canary, read.shadow, read.versions()) == (1, canary, shadow, {1, 2, 3})
    catalog.put_alias("toy", "production", version=1)
    assert catalog.served("toy")["production"].versions() == {1}
    with pytest.raises(ModelNotFound):
        catalog.put_alias("toy", "production", version=1, canary=Canary(version=9, percent=1))


def test_a_rollback_goes_to_the_version_before_and_again_further_back_never_forward(catalog: Catalog) -> None:
    for version in (1, 2, 3):
        catalog.put_alias("toy", "production", version=version, canary=Canary(version=4, percent=1))
    assert [catalog.roll_back("toy", "production")[0].version for _ in range(2)] == [2, 1]
    with pytest.raises(NothingToRollBack):
        catalog.roll_back("toy", "production")
    catalog.set_alias("toy", "production", 4)
    back, _ = catalog.roll_back("toy", "production")
    assert (back.version, back.canary) == (1, None)
    assert [(past.version, past.left_by) for past in back.history] == [
        (1, "set"),
        (2, "set"),
        (3, "rollback"),
        (2, "rollback"),
        (1, "set"),
        (4, "rollback"),
    ]
    assert all(past.since is not None and past.since <= past.until for past in back.history)
    assert [past.until for past in back.history[:-1]] == [past.since for past in back.history[1:]]


def test_a_rollback_passes_over_a_version_that_was_deleted(catalog: Catalog) -> None:
    for version in (1, 2, 3):
        catalog.set_alias("toy", "production", version)
    catalog.delete("toy", 2)
    assert catalog.roll_back("toy", "production")[0].version == 1
    with pytest.raises(NothingToRollBack):
        catalog.roll_back("toy", "production")


def test_a_change_is_refused_where_the_aliases_are_not_those_that_were_seen(catalog: Catalog) -> None:
    seen = catalog.etag("toy")
    _, now = catalog.put_alias("toy", "production", version=1, expected={seen})
    assert now == catalog.etag("toy") != seen
    for change in (
        lambda: catalog.put_alias("toy", "production", version=2, expected={seen}),
        lambda: catalog.roll_back("toy", "production", expected={seen}),
        lambda: catalog.delete_alias("toy", "production", expected={seen}),
    ):
        with pytest.raises(AliasesChanged):
            change()
    assert catalog.aliases("toy") == {"production": 1}
    catalog.put_alias("toy", "production", version=2, expected={"other", catalog.etag("toy")})


def test_the_etag_tells_a_new_version_that_an_unset_production_would_serve(catalog: Catalog, tmp_path: Path) -> None:
    seen = catalog.etag("toy")
    catalog.publish("toy", make_artifact(tmp_path / "e", job="job_e", network=False), "job_e")
    assert catalog.etag("toy") != seen
    assert etag({}) == etag({})


def test_the_first_format_is_read_and_becomes_the_second_with_the_next_change(catalog: Catalog) -> None:
    file = catalog.root / "toy" / "aliases.json"
    file.write_text('{"production": 3, "format": 1}')
    assert catalog.aliases("toy") == {"production": 3, "format": 1}
    catalog.set_alias("toy", "production", 2)
    written = json.loads(file.read_bytes())
    assert (written["format"], written["aliases"]["format"]["version"]) == (2, 1)
    assert catalog.roll_back("toy", "production")[0].version == 3


def test_an_alias_that_is_put_as_it_is_changes_nothing(catalog: Catalog) -> None:
    catalog.set_alias("toy", "production", 2)
    before = (catalog.root / "toy" / "aliases.json").read_bytes()
    catalog.set_alias("toy", "production", 2)
    assert (catalog.root / "toy" / "aliases.json").read_bytes() == before


def test_a_training_that_ends_late_does_not_undo_a_rollback(catalog: Catalog) -> None:
    for version in (1, 4):
        catalog.set_alias("toy", "production", version)
    catalog.roll_back("toy", "production")
    catalog.advance_alias("toy", "production", 3)
    assert catalog.aliases("toy") == {"production": 1}


def test_an_alias_is_deleted_and_production_is_the_newest_again(catalog: Catalog) -> None:
    catalog.set_alias("toy", "production", 1)
    catalog.delete_alias("toy", "production")
    assert catalog.resolve("toy") == ("toy", 4)
    for alias in ("production", "nobody"):
        with pytest.raises(ModelNotFound):
            catalog.delete_alias("toy", alias)


def test_the_history_is_bounded(catalog: Catalog) -> None:
    alias = Alias(version=1)
    for number in range(200):
        at = Alias.model_validate({"version": 1, "since": "2026-01-01T00:00:00Z"}).since
        assert at is not None
        alias = alias.moved(version=2 + number, canary=None, shadow=None, at=at, by="set")
    assert len(alias.history) == 50
    assert alias.previous(set(range(300))) == 200


def test_a_version_that_something_needs_is_not_deleted(catalog: Catalog) -> None:
    catalog.put_alias("toy", "a", version=1, canary=Canary(version=2, percent=0), shadow=Shadow(version=3))
    for version in (1, 2, 3):
        with pytest.raises(VersionInUse, match="alias a needs it"):
            catalog.delete("toy", version)
    with pytest.raises(VersionInUse, match="alias production needs it"):
        catalog.delete("toy", 4)  # nobody set it: it is the newest
    assert catalog.versions("toy") == [1, 2, 3, 4]


def test_a_version_that_is_found_by_an_engine_at_the_last_moment_comes_back(catalog: Catalog) -> None:
    asked: list[list[int]] = []

    def used() -> str | None:
        asked.append(catalog.versions("toy"))
        return "an engine" if len(asked) == 2 else None

    with pytest.raises(VersionInUse, match="an engine"):
        catalog.delete("toy", 1, used=used)
    assert asked == [[1, 2, 3, 4], [2, 3, 4]]
    assert catalog.folder("toy", 1).joinpath("model.json").is_file()


def test_the_number_of_a_deleted_version_is_never_given_again(catalog: Catalog, tmp_path: Path) -> None:
    catalog.set_alias("toy", "production", 1)
    for version in (4, 3, 2):
        catalog.delete("toy", version)
    catalog.delete_alias("toy", "production")
    catalog.delete("toy", 1)  # the last one, which no alias that somebody set needs
    assert catalog.names() == []
    with pytest.raises(ModelNotFound):
        catalog.delete("toy", 1)
    again = make_artifact(tmp_path / "e", job="job_e", network=False)
    assert Catalog(catalog.root).publish("toy", again, "job_e") == 5
    assert list(catalog.root.joinpath("toy").glob(".*.tmp")) == []
    assert Aliases.read(catalog.root / "toy").highest == 4
