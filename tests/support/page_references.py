"""References of a page to other resources."""

from __future__ import annotations

from html.parser import HTMLParser


class PageReferences(HTMLParser):
    """Everything in a page that names another resource. found: addresses. tags: names of elements, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "poster", "data")]
