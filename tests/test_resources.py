"""Where files are that are not Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.resources import cache_dir, data_dir


@pytest.mark.parametrize("name", ["grammar", "scripts"])
def test_the_folders_that_ship_with_the_product_exist(name: str) -> None:
    assert any(data_dir(name).iterdir())


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir("kernels") == Path("/somewhere/probekit/kernels")


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_cache_that_is_not_absolute_is_ignored(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/home/user")
    assert cache_dir("kernels") == Path("/home/user/.cache/probekit/kernels")
