"""The tree of passages as a writer surveys it: stretches without a fork, and what was put away."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from storygen.story.tree import Passage, StoryTree

OPENING = 80  # characters


@dataclass(eq=False)
class Run:
    """Passages that follow each other without a fork. It ends where the story forks, where it
    stops, at the head, and where the writer has put a name or a star."""

    parent: "Run | None"
    passages: list[Passage] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id of the last passage: to stand there is to stand at the end of this run."""
        return self.passages[-1].id


def runs(tree: StoryTree) -> list[Run]:
    """All that was not put away and the active branch, parents before what follows them."""
    hidden = hidden_ids(tree)
    following = Counter(passage.parent_id for passage in tree if passage.id not in hidden)
    found: list[Run] = []
    run_of: dict[str | None, Run] = {}
    for passage in tree:
        if passage.id in hidden:
            continue
        before = run_of.get(passage.parent_id)
        if before is None or before.id != passage.parent_id or _ends(tree, before.id, following):
            before = Run(before)
            found.append(before)
        before.passages.append(passage)
        run_of[passage.id] = before
    return found


def hidden_ids(tree: StoryTree) -> set[str]:
    """Passages that were put away with one of those before them, but for the active branch."""
    active = {passage.id for passage in tree.branch()}
    away: set[str] = set()
    for passage in tree:
        if passage.parent_id in away or tree.mark(passage.id).deleted:
            away.add(passage.id)
    return away - active


def put_away(tree: StoryTree) -> list[Passage]:
    """The beginnings of what was put away and can be brought back."""
    return [passage for passage in tree if tree.mark(passage.id).deleted]


def first_words(tree: StoryTree, passage: Passage) -> str:
    """How a passage begins; of one that was edited, from the first words that are new."""
    source = tree[passage.source_id].text if passage.source_id else passage.text
    if source == passage.text:
        return opening(passage.text)
    pairs = enumerate(zip(source, passage.text, strict=False))
    start = next((n for n, (a, b) in pairs if a != b), min(len(source), len(passage.text)))
    word = passage.text.rfind(" ", 0, start) + 1
    return opening(passage.text[word:]) if word == 0 else opening(f"… {passage.text[word:]}")


def opening(text: str) -> str:
    """The first words of a text on one line."""
    words = " ".join(text[: 4 * OPENING].split())
    return words if len(words) <= OPENING else words[: OPENING - 1] + "…"


def _ends(tree: StoryTree, passage_id: str, following: Mapping[str | None, int]) -> bool:
    """Whether a run ends here although something follows; following counts what does."""
    mark = tree.mark(passage_id)
    if passage_id == tree.head_id or mark.name or mark.favourite:
        return True
    return following[passage_id] != 1
