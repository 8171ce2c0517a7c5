"""README and docs/: do links lead somewhere, and is the picture of the packages up to date?"""

import re

import pytest

from iov_restore_ros.tools.draw_imports import diagram, imported_packages

LINK = re.compile(r'\]\(([^)\s]+)\)')
HEADING = re.compile(r'^#+ (.+)$', re.M)


@pytest.fixture(scope='module')
def pages(pytestconfig):
    root = pytestconfig.rootpath
    return {
        path: re.sub(r'^```.*?^```|<!--.*?-->', '', path.read_text(), flags=re.M | re.S)
        for path in (root / 'README.md', *sorted(root.glob('docs/*.md')))
    }


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    return {
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in HEADING.findall(text)
    }


def test_links_lead_to_pages_and_headings(pages):
    broken = []
    for page, text in pages.items():
        for link in LINK.findall(text):
            file, _, anchor = link.partition('#')
            target = (page.parent / file).resolve() if file else page
            if link.startswith('http') or (target.exists() and not anchor):
                continue
            if anchor not in anchors(pages.get(target, '')):
                broken.append(f'{page.name}: {link}')
    assert not broken


def test_every_page_is_linked_from_another(pages):
    linked = {
        (page.parent / link.partition('#')[0]).resolve()
        for page, text in pages.items() for link in LINK.findall(text)
    }
    assert {page.name for page in pages if page.name != 'README.md' and page not in linked} == set()


def test_picture_of_the_packages_is_up_to_date(pytestconfig):
    page = (pytestconfig.rootpath / 'docs' / 'develop.md').read_text()
    assert f'```mermaid\n{diagram(imported_packages())}\n```' in page, (
        'run python -m iov_restore_ros.tools.draw_imports, and put what it prints there'
    )


def test_imports_are_found_and_implied_arrows_left_out(tmp_path):
    for name, lines in {
        'low/__init__.py': '',
        'low/part.py': 'import os\nfrom iov_restore_ros.low import other',
        'middle/__init__.py': 'def late():\n    import iov_restore_ros.low.part',
        'high/deep/part.py': 'from ...low import part\nfrom iov_restore_ros import middle',
        'high/__init__.py': 'from iov_restore_ros.stop import Stopped',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines)
    imports = imported_packages(tmp_path)
    assert imports == {'low': set(), 'middle': {'low'}, 'high': {'low', 'middle'}}
    assert diagram(imports) == 'flowchart TD\n    high --> middle\n    middle --> low'
