"""What a writer does in the workspace beside the chat."""

from typing import TYPE_CHECKING

from playwright.sync_api import Locator, expect

if TYPE_CHECKING:
    from tests.browser.conftest import Desk

OPENING = "Miss Harding knew the hand. She called for nonce-amber"
SHORT = 12  # words of a passage, so that tests are quick


class Workspace:
    """The panel, as a writer uses it."""

    def __init__(self, desk: "Desk") -> None:
        self.desk, self.page = desk, desk.page
        self.passages = desk.page.locator(".ws-passage")

    def begin(self, text: str = OPENING) -> None:
        """A story with one passage of each, and the panel open."""
        self.desk.open()
        self.ask({"do": "set", "max_new_tokens": SHORT})
        self.open()
        self.desk.write(text)
        self.desk.wait()
        self.page.wait_for_url("**/thread/*")
        expect(self.passages).to_have_count(2)

    def open(self) -> None:
        """Open the panel."""
        self.page.click("#workspace-button")
        expect(self.page.locator("#workspace")).to_be_visible()

    def reload(self) -> None:
        """Load the page anew; the panel is open again by itself."""
        self.page.reload()
        self.desk.wait_for_story()
        expect(self.page.locator("#workspace")).to_be_visible()

    def ask(self, message: dict[str, object]) -> None:
        """What the page's own buttons send."""
        self.page.evaluate("m => window.postMessage({ storygen: m }, location.origin)", message)

    def tab(self, name: str) -> Locator:
        """Go to a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def press(self, name: str) -> None:
        """Press a button of the workspace."""
        self.page.locator("#workspace, dialog").get_by_role("button", name=name, exact=True).click()

    def click(self, number: int) -> None:
        """Click a passage, in its first line, once it will stay what it is."""
        prose = self.page.locator(".ws-page > .ws-prose")
        expect(prose).to_have_attribute("aria-busy", "false")
        x, y = self.passages.nth(number).evaluate(
            """passage => {
              passage.scrollIntoView({ block: "center" });
              const [line] = passage.getClientRects();
              return [line.left + line.width / 2, line.top + line.height / 2];
            }"""
        )
        self.page.mouse.click(x, y)

    def texts(self) -> list[str]:
        """The passages as the browser reads them out."""
        return self.passages.all_inner_texts()

    def id_of(self, number: int) -> str:
        """A passage's id."""
        return str(self.passages.nth(number).get_attribute("data-passage"))

    def copied(self) -> str:
        """The whole manuscript by way of the clipboard, selected with the keyboard."""
        self.page.locator(".ws-page > .ws-prose").focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Control+c")
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def exported(self) -> str:
        """The story as the server writes it into a file of plain text."""
        story = self.page.url.rsplit("/", 1)[1].partition("#")[0]
        answer = self.page.request.get(f"{self.desk.server.url}/api/stories/{story}/manuscript")
        return "".join(p["joint"] + p["text"] for p in answer.json()["passages"])
