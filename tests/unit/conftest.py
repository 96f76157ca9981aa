"""A run of each kind, and a page of two of them, for the tests of what the report makes of runs."""

import pytest
from page_reading import Page
from page_results import canary_results, exposure_results, inversion_results, leakage_results

from lm_eval_inversion.report.page import page_html


@pytest.fixture(scope="session")
def inversion():
    return inversion_results()


@pytest.fixture(scope="session")
def leakage():
    return leakage_results()


@pytest.fixture(scope="session")
def canary():
    return canary_results()


@pytest.fixture(scope="session")
def exposure():
    return exposure_results()


@pytest.fixture(scope="session")
def page(inversion, leakage):
    return Page(page_html([inversion, leakage]))
