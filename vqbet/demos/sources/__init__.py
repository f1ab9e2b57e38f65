"""Demonstrations in foreign formats: what there is in a folder or file, read episode by episode."""

from __future__ import annotations

from vqbet.demos.sources.recognise import FORMATS, opened

__all__ = ["FORMATS", "opened"]
