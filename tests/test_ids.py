"""Ids are credentials: unguessable, recognised by their look, and never shown to a store."""

from __future__ import annotations

import re

import pytest

from trio_session._ids import Ids

ID = "Abcdefghijklmnopqrstuvwxyz0123456789-_ABCDEFGHIJ"


def test_new_ids_are_valid_and_all_different() -> None:
    """Each id is 48 base64url characters that no other id has."""
    ids = Ids()
    made = {ids.new() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{48}", id) and ids.is_valid(id) for id in made)


def test_every_character_of_an_id_is_random() -> None:
    """No position of an id is fixed, so that all 288 bits count."""
    made = [Ids().new() for _ in range(100)]
    assert min(len(set(column)) for column in zip(*made, strict=True)) > 20


def test_an_id_like_another_shares_only_its_slot() -> None:
    """A new id for an old session lives in the same cluster slot and tells nothing else."""
    ids = Ids()
    fresh = ids.new(like=ID)
    assert ids.is_valid(fresh)
    assert fresh[:2] == ID[:2]
    assert fresh[2:] != ID[2:]
    assert ids.key(fresh)[:3] == ids.key(ID)[:3]


@pytest.mark.parametrize(
    "text",
    ["", ID[:-1], ID + "A", ID + "\n", ID[:-1] + "=", ID[:-1] + "é", ID[:-1] + "\u0660", " " + ID],
)
def test_what_does_not_look_like_an_id_is_refused(text: str) -> None:
    """Anything but 48 characters of the alphabet is as good as absent."""
    assert Ids().is_valid(ID)
    assert not Ids().is_valid(text)


def test_a_key_is_stable_and_hides_the_id() -> None:
    """The same id always has the same key, another id another one, and no key leads back."""
    ids = Ids()
    # printf %s "$ID" | openssl sha256 -binary | base64 | tr +/ -_ | cut -c1-22
    assert ids.key(ID) == "Ab:XOA16LHsdx14twThc8mpZo"
    assert ids.key(ID[:-1] + "K") != ids.key(ID)
    assert ID[2:8] not in ids.key(ID)
