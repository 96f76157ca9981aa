"""The HTML page in a real headless Chromium: filters, theme, phone width, and nothing of a model acts or calls out."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from page_results import HOSTILE, inversion_results, leakage_results

from lm_eval_inversion.report.page import write_page

BINARIES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
)  # fmt: skip
PHONE_WIDTH = 390


class Listener:
    """A local server that remembers which paths were asked for."""

    def __init__(self):
        self.paths = paths = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                paths.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def listener():
    found = Listener()
    yield found
    found.server.shutdown()


@pytest.fixture(scope="module")
def runs(listener):
    calls = (
        f"<img src='{listener.address}/image'><script src='{listener.address}/script'></script>",
        f"<link rel=stylesheet href='{listener.address}/style'><iframe src='{listener.address}/frame'></iframe>",
        f"<script>fetch('{listener.address}/fetch'); window.acted = 1</script>",
    )
    return inversion_results(hostile=(*HOSTILE, *calls)), leakage_results(hostile=(*HOSTILE, *calls))


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(runs, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    binary = next(filter(None, map(shutil.which, BINARIES)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with chromedriver on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


def prefer(browser, scheme):
    """What the system asks for: light or dark, and no smooth scrolling, which would move what a test clicks."""
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture
def page(browser, address):
    """The page, freshly opened, light, at desktop width, without remembered choices."""
    prefer(browser, "light")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(address)
    return browser


def find(page, selector):
    return page.find_element("css selector", selector)


def shown(page, run=1):
    """Ids of the prompts on screen, in their order."""
    rows = f"[...document.querySelectorAll('#run-{run}-list > .prompt')].filter(row => row.offsetParent)"
    return page.execute_script(f"return {rows}.map(row => row.querySelector('h4').textContent)")


def choose(page, name, value, run=1):
    from selenium.webdriver.support.ui import Select

    Select(find(page, f"#run-{run}-prompts [name={name}]")).select_by_value(value)


def told(page, run=1):
    return find(page, f"#run-{run}-prompts output").text


def background(page):
    return page.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_filters_show_what_fits_and_clear_again(page, runs):
    rows = runs[0].rows
    everything = [row.prompt_id for row in rows]
    assert shown(page) == everything
    category = rows[3].prompt.category
    choose(page, "category", category)
    assert shown(page) == [row.prompt_id for row in rows if row.prompt.category == category]
    choose(page, "band", "long")
    wanted = [row.prompt_id for row in rows if row.prompt.category == category and row.prompt.length_band == "long"]
    assert shown(page) == wanted
    assert told(page) == f"{len(wanted)} of {len(rows)} shown"
    clear = find(page, "#run-1-prompts button[type=reset]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", clear)  # the bar sticks to the top of a list that grew shorter
    clear.click()
    page.execute_async_script("setTimeout(arguments[0], 50)")
    assert shown(page) == everything


def test_least_score_leaves_out_lower_and_unscored_prompts(page, runs):
    least = find(page, "#run-1-prompts [name=least]")
    least.send_keys("20.5")
    assert shown(page) == [row.prompt_id for row in runs[0].rows if row.metrics.get("bits", -1e9) >= 20.5]
    least.clear()
    least.send_keys("99999")
    assert shown(page) == []
    assert "No prompt fits these filters." in find(page, "#run-1-prompts .nothing").text


def test_search_finds_words_of_both_texts_and_ids(page, runs):
    rows = runs[0].rows
    search = find(page, "#run-1-prompts [name=words]")
    word = rows[10].truth.split()[2].strip(".,:;").lower()
    search.send_keys(word.upper())
    wanted = [row.prompt_id for row in rows if word in f"{row.prompt_id}\n{row.truth}\n{row.reconstruction}".lower()]
    assert rows[10].prompt_id in wanted
    assert shown(page) == wanted
    search.clear()
    search.send_keys(rows[4].prompt_id)
    assert shown(page) == [rows[4].prompt_id]


def test_search_finds_the_same_before_and_after_answers_are_opened(page, runs):
    rows = runs[0].rows
    search = find(page, "#run-1-prompts [name=words]")
    phrase = next(answer for answer in rows[10].answers if answer.startswith("As for"))  # of the answers alone

    def found():
        search.clear()
        search.send_keys(phrase)
        return shown(page)

    open_all = "document.querySelectorAll('#run-1-prompts details.answers').forEach(one => { one.open = true; })"
    page.execute_script(open_all)  # before anything is searched
    page.execute_async_script("setTimeout(arguments[0], 300)")
    opened = found()
    page.refresh()
    search = find(page, "#run-1-prompts [name=words]")
    closed = found()
    page.execute_script(open_all)
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert opened == closed == found() == []


def test_order_by_score(page, runs):
    choose(page, "order", "high")
    scored = sorted((row for row in runs[0].rows if "bits" in row.metrics), key=lambda row: -row.metrics["bits"])
    assert shown(page) == [*(row.prompt_id for row in scored), runs[0].rows[-1].prompt_id]
    choose(page, "order", "place")
    assert shown(page) == [row.prompt_id for row in runs[0].rows]


def test_filters_of_one_run_leave_the_other_alone(page, runs):
    choose(page, "category", runs[1].rows[0].prompt.category, run=2)
    assert len(shown(page, 2)) < len(runs[1].rows)
    assert len(shown(page)) == len(runs[0].rows)


def test_theme_follows_the_system_and_the_button_and_is_remembered(page, address):
    from selenium.webdriver.support.ui import WebDriverWait

    light = background(page)
    prefer(page, "dark")
    dark = background(page)
    assert dark != light
    button = find(page, "#theme")
    # The page hears of the new preference by an event, which a busy machine delivers later than the style.
    WebDriverWait(page, 10).until(lambda _: button.text == "Light")
    button.click()
    assert (background(page), button.text) == (light, "Dark")
    page.get(address)
    assert background(page) == light
    find(page, "#theme").click()
    assert background(page) == dark


def test_answers_open_with_the_leaked_part_marked(page, runs):
    secret = runs[1].rows[1].truth
    card = find(page, "#run-2-prompt-1")
    page.execute_script("arguments[0].scrollIntoView()", card)
    details = card.find_element("css selector", "details.answers")
    assert len(details.find_elements("css selector", "li")) == 0
    page.execute_script("arguments[0].querySelector('summary').click()", details)
    page.execute_async_script("setTimeout(arguments[0], 100)")
    items = details.find_elements("css selector", "li")
    assert len(items) == len(runs[1].rows[1].requests)
    assert "recovery 1.000, leaked" in items[3].text
    assert items[3].find_element("css selector", "mark").text.rstrip(".").split() == secret.rstrip(".").split()


def test_long_texts_unfold(page, runs):
    place = next(index for index, row in enumerate(runs[0].rows) if len(row.truth) > 600)
    card = find(page, f"#run-1-prompt-{place}")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", card)
    text, button = card.find_element("css selector", ".text"), card.find_element("css selector", ".unfold")
    folded = text.size["height"]
    page.execute_script("arguments[0].click()", button)
    assert text.size["height"] > folded
    assert button.get_attribute("aria-expanded") == "true"


def test_heat_map_says_what_is_under_the_pointer_and_leads_to_the_prompt(page, runs):
    from selenium.webdriver import ActionChains

    rows = runs[1].rows
    order = sorted(rows, key=lambda row: (row.prompt.words, row.prompt_id))
    heat = find(page, "#run-2-heat svg.heat")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", heat)
    left = -heat.size["width"] / 2 + heat.size["width"] / len(rows) / 2  # the middle of the first column, from the middle
    ActionChains(page).move_to_element_with_offset(heat, int(left), 0).perform()
    first = order[0].requests[0]
    expected = "no answer" if first["state"] != "answered" else f"recovery {first['recovery']:.3f}" + ", leaked" * first["leaked"]
    assert find(page, "#run-2-heat .pointed").text == f"{order[0].prompt_id} × {first['id']}: {expected}"
    ActionChains(page).click().perform()
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert find(page, f"#run-2-prompt-{rows.index(order[0])} details.answers").get_attribute("open") is not None


def test_a_first_tap_reads_a_cell_and_a_second_leads_to_the_prompt(page, runs):
    rows = runs[1].rows
    first = min(rows, key=lambda row: (row.prompt.words, row.prompt_id))
    prompt = f"#run-2-prompt-{rows.index(first)} details.answers"
    heat = find(page, "#run-2-heat svg.heat")
    tap = """
      const box = arguments[0].getBoundingClientRect();
      const place = { clientX: box.left + box.width / 2 / arguments[1], clientY: box.top + box.height / 2 };
      arguments[0].dispatchEvent(new PointerEvent("click", { pointerType: "touch", bubbles: true, ...place }));
      setTimeout(arguments[2], 200);
    """
    page.execute_async_script(tap, heat, len(rows))
    assert find(page, "#run-2-heat .pointed").text.startswith(f"{first.prompt_id} × ")
    assert find(page, prompt).get_attribute("open") is None
    page.execute_async_script(tap, heat, len(rows))
    assert find(page, prompt).get_attribute("open") is not None


def test_the_table_of_the_heat_map_leads_to_prompts_that_are_filtered_out(page, runs):
    page.execute_script("document.querySelector('#run-2-heat details').open = true")
    words = find(page, "#run-2-prompts [name=words]")
    words.send_keys("nothing has these words")
    assert shown(page, 2) == []
    link = find(page, "#run-2-heat tbody th a")
    link.send_keys("\ue007")  # the key Enter
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert shown(page, 2) == [row.prompt_id for row in runs[1].rows]
    card = find(page, link.get_attribute("hash"))
    assert card.find_element("css selector", "h4").text == link.text
    assert card.find_element("css selector", "details.answers").get_attribute("open") is not None


@pytest.mark.parametrize("size", [(1280, 1000), (1100, 820), (1000, 700)])
def test_the_filters_never_lie_over_what_has_the_focus(page, size):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    wide, high = size
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": False})
    page.execute_script("[...document.querySelectorAll('#run-1-prompts .prompt summary')][12].focus()")
    covered, steps = [], 0
    for _ in range(14):
        ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        page.execute_async_script("setTimeout(arguments[0], 60)")
        name, top, bar, inside = page.execute_script("""
            const one = document.activeElement, bar = document.querySelector('#run-1-prompts .filters').getBoundingClientRect();
            return [one.textContent, one.getBoundingClientRect().top, bar.bottom, one.closest('.prompt') !== null];
        """)
        steps += inside
        if inside and top < bar:
            covered.append((name, top, bar))
    assert steps > 8
    assert covered == []


def test_values_and_counts_of_a_plot_stand_apart(page):
    gaps = page.execute_script("""
      const values = [...document.querySelectorAll('.dot-value')].filter(value => value.childNodes.length === 2);
      values.forEach(value => { value.querySelector('small').textContent = '216 of 288'; });
      return values.map(value => {
        const [one, other] = [...value.childNodes].map(part => {
          const range = document.createRange();
          range.selectNodeContents(part);
          return range.getBoundingClientRect();
        });
        return other.left - one.right;
      });
    """)
    assert len(gaps) > 20
    assert min(gaps) >= 8


def test_every_plot_has_its_numbers_behind_it(page):
    for figure in page.find_elements("css selector", "figure.panel"):
        assert figure.find_elements("css selector", "svg")
        page.execute_script("arguments[0].querySelector('summary').click()", figure)
        assert len(figure.find_elements("css selector", "details table tbody tr")) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_has_no_sideways_scroll(page, scheme):
    prefer(page, scheme)
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": PHONE_WIDTH, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    page.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.execute_async_script("setTimeout(arguments[0], 300)")
    assert page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]") == [PHONE_WIDTH, PHONE_WIDTH]


def test_on_a_phone_every_row_has_a_cell_under_every_header(page):
    """Cells without room are out of sight, not out of the tree that screen readers are told."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": PHONE_WIDTH, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    gone = page.execute_script("""
      const cells = [...document.querySelectorAll('.stacked tbody :is(.absent, .usual)')];
      return [cells.length, cells.filter(cell => getComputedStyle(cell).display === 'none').length,
              cells.filter(cell => cell.getBoundingClientRect().width > 1).length];
    """)
    assert gone[0] > 20
    assert gone[1:] == [0, 0]


def test_print_cuts_nothing_and_is_dark_on_white(page):
    prefer(page, "dark")
    page.execute_script("document.documentElement.dataset.theme = 'dark'")
    colours = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    on_screen = page.execute_script(colours)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    try:
        cut = page.execute_script("""
          const long = [...document.querySelectorAll('.long')];
          return [long.length, long.filter(text => text.scrollHeight > text.clientHeight + 2).length,
                  long.filter(text => getComputedStyle(text).maskImage !== 'none').length];
        """)
        assert cut[0] > 5
        assert cut[1:] == [0, 0]
        printed = page.execute_script(colours)
        assert printed != on_screen
        page.execute_script("document.documentElement.dataset.theme = 'light'")
        assert page.execute_script(colours) == printed
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_shapes_have_contrast(page, scheme):
    """WCAG AA: 4.5 to 1 of ink, quiet text, accent and marked words on what they stand on, 3 to 1 of what is drawn and of controls."""
    prefer(page, scheme)
    found = page.execute_script("""
      const probe = document.body.appendChild(document.createElement("i"));
      const of = name => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number); };
      const names = ["ink", "quiet", "accent", "paper", "panel", "mark", "soft", "edge", "near"];
      const all = Object.fromEntries(names.map(name => [name, of(name)]));
      probe.remove();
      return all;
    """)

    def luminance(colour):
        linear = [part / 255 / 12.92 if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, other):
        high, low = sorted((luminance(found[one]), luminance(found[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    pairs = [(text, ground) for text in ("ink", "quiet", "accent") for ground in ("paper", "panel")]
    for text, ground in (*pairs, ("ink", "mark"), ("quiet", "soft"), ("ink", "soft")):
        assert contrast(text, ground) >= 4.5, (text, ground)
    # Edges of controls; cells of the heat map against empty ones, and the hole in those that leaked.
    cells = [(shape, "soft") for shape in ("near", "accent", "quiet")]
    for shape, ground in (("edge", "paper"), ("edge", "panel"), *cells, ("panel", "accent")):
        assert contrast(shape, ground) >= 3, (shape, ground)
    whole = "return [...document.querySelectorAll('.interval, [class^=heat-]')].every(one => getComputedStyle(one).opacity === '1')"
    assert page.execute_script(whole)
    border = "return getComputedStyle(document.querySelector(arguments[0])).borderTopColor.match(/[\\d.]+/g).map(Number)"
    for control in (".filters input", ".filters select", ".button"):
        assert page.execute_script(border, control) == found["edge"], control
    assert page.execute_script("return getComputedStyle(document.querySelector('.prompt mark')).textDecorationLine") == "underline"


def test_nothing_of_a_model_acts_or_calls_out(page, listener):
    """Everything opened, nothing ran, nothing was asked for but the file; a page without the policy shows that asking would be seen."""
    listener.paths.clear()
    page.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.execute_async_script("setTimeout(arguments[0], 500)")
    assert page.execute_script("return document.querySelectorAll('.answer-list li').length") > 100
    assert page.execute_script("return window.acted === undefined")
    assert page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []
    requested = [
        event["params"]["request"]["url"]
        for event in (json.loads(entry["message"])["message"] for entry in page.get_log("performance"))
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert requested
    assert all(url.startswith(("file:", "data:")) for url in requested), requested
    assert listener.paths == []
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    page.get(f"{listener.address}/control")
    page.execute_async_script(
        "const done = arguments[1], image = new Image(); image.onload = image.onerror = () => done(1); image.src = arguments[0];",
        f"{listener.address}/image",
    )
    assert "/image" in listener.paths


def test_the_policy_stops_what_would_have_got_in(page, listener):
    """Even markup that slipped into the page could neither run nor call out."""
    listener.paths.clear()
    page.execute_script(
        """
        const inside = document.createElement("script");
        inside.textContent = "window.acted = 1";
        document.body.append(inside);
        const holder = document.body.appendChild(document.createElement("div"));
        const image = `<img src="${arguments[0]}/image" onerror="window.acted = 1">`;
        holder.innerHTML = `${image}<link rel="stylesheet" href="${arguments[0]}/style">`;
        window.refused = null;
        fetch(`${arguments[0]}/fetch`).then(() => { window.refused = false; }, () => { window.refused = true; });
        """,
        listener.address,
    )
    page.execute_async_script("setTimeout(arguments[0], 500)")
    assert page.execute_script("return [window.acted === undefined, window.refused]") == [True, True]
    assert listener.paths == []
