"""What stands on a page in HTML and in a table in Markdown, for the tests that look for it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements with attributes, the text of every id, rows of tables as lists of texts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.rows, self.scripts, self.texts = [], [], [], []
        self.stack = []
        self.feed(text.replace("<wbr>", ""))  # where a name may be broken

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/> is not written so")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] += data
        elif self.stack and self.stack[-1] != "style":
            self.texts.append(data)
            if {"td", "th"} & set(self.stack):
                self.rows[-1][-1] += data if self.rows[-1][-1] == "" else f" {data}"

    @property
    def text(self):
        return " ".join(self.texts)


def table_lines(markdown):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()[2:]]
